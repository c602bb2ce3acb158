"""Read a campaign from the Python file that a person wrote: its docstring is the question, its `chains()` the answer's parts.

    \"\"\"Does harder pseudo-supervision help?\"\"\"
    from stepchain.presets import digits_wilson
    from orchestrator.planning.campaign import sweep

    def chains():
        return sweep(digits_wilson(), {"method.alpha": (0, 0.5, 1), "seed": range(3)})

A constant PAPER, a tuple of `orchestrator.planning.paper_numbers.Expected`, ties its variants to published numbers.
"""

import inspect
import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from pydantic import ValidationError

from jobs.errors import told
from orchestrator.planning.campaign import Campaign
from orchestrator.planning.chain import Chain
from orchestrator.planning.paper_numbers import Expected
from training.config import InputError

SHIPPED = Path(__file__).parents[1] / "campaigns"


def load_campaign(wanted: str) -> Campaign:
    """The campaign that ships under this name, or in the file at this path.

    Raises InputError for a name or path that there is not, and for whatever goes wrong in the file, with the line.
    """
    path = _find(wanted)
    try:
        question, chains, paper = _read(path)
        return Campaign(path.stem, question, chains, paper)
    except InputError as error:
        raise InputError(f"campaign {path}{_line(error, path)}: {error}") from error


def shipped() -> list[str]:
    """Names of the campaigns that come with the product."""
    return sorted(path.stem for path in SHIPPED.glob("*.py") if not path.stem.startswith("_"))


def _find(wanted: str) -> Path:
    if wanted.endswith(".py") or "/" in wanted:
        path = Path(wanted).expanduser().resolve()
        if not path.is_file():
            raise InputError(f"there is no campaign file {wanted}")
        return path
    name, names = wanted.replace("-", "_"), shipped()
    if name not in names:
        near = get_close_matches(name, names, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names) or 'none'}"
        raise InputError(
            f"there is no campaign {wanted!r}: {advice}; one of your own is given by its path, ending in .py"
        )
    return SHIPPED / f"{name}.py"


def _read(path: Path) -> tuple[str, tuple[Chain, ...], tuple[Expected, ...]]:
    """The question, chains and published numbers of a file; whatever it raises becomes an InputError."""
    spec = spec_from_file_location(f"campaign_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError("it is no Python file")
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        function = getattr(module, "chains", None)
        if not callable(function):
            raise InputError("it has no function chains() that returns the chains")
        chains = _checked(function())
        return inspect.getdoc(module) or "", chains, tuple(getattr(module, "PAPER", ()))
    except (InputError, KeyboardInterrupt):
        raise
    except ValidationError as error:
        raise InputError(told(error)) from error
    except Exception as error:
        raise InputError(f"{type(error).__name__}: {error}") from error


def _checked(found: object) -> tuple[Chain, ...]:
    """What chains() returned, if that is chains."""
    items = tuple(found) if isinstance(found, Iterable) else (found,)
    chains = tuple(item for item in items if isinstance(item, Chain))
    if not isinstance(found, Iterable) or len(chains) < len(items):
        wrong = next((item for item in items if not isinstance(item, Chain)), found)
        raise InputError(
            f"chains() must return a sequence of chains; it returned a {type(found).__name__}, with {wrong!r:.80}"
        )
    return chains


def _line(error: BaseException, path: Path) -> str:
    """`, line 12`: where in the file it went wrong, as far as that is known."""
    cause = error.__cause__ or error
    if isinstance(cause, SyntaxError) and cause.filename == str(path):
        return f", line {cause.lineno}"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(cause.__traceback__)
        if frame.filename == str(path)
    ]
    return f", line {lines[-1]}" if lines else ""
