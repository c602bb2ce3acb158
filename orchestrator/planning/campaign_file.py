r'''Read a campaign from a Python file.

The file's docstring is the question. Its function `chains()` returns the chains that answer it:

    """Does harder pseudo-supervision help?"""
    from stepchain import sweep
    from stepchain.presets import digits_wilson

    def chains():
        return sweep(digits_wilson(), {"method.alpha": (0, 0.5, 1), "seed": range(3)})

A constant PAPER, a tuple of `stepchain.Expected`, ties the variants to
published numbers. A constant RESOURCES says what each kind of work is given, as --give does:
`{"increment": {"gpus": 0.25, "memory": 8}}`.
'''

import inspect
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from pydantic import ValidationError

from orchestrator.cluster.give import gives_of_file
from orchestrator.planning.campaign import Campaign
from orchestrator.planning.chain import Chain
from orchestrator.planning.paper_numbers import Expected
from orchestrator.planning.search import Search
from orchestrator.planning.validation import describe_validation_error
from training.config import InputError


def load_campaign(wanted: str, shipped: Path) -> Campaign:
    """Load a campaign from its file.

    Args:
        wanted: Name of a campaign that ships with the product, or the path of a file. A path ends
            in `.py` or contains a slash.
        shipped: Folder of the campaigns that ship with the product.

    Raises:
        InputError: There is no such name or file, or the file fails. The message names the line.
    """
    path = _find_file(wanted, shipped)
    try:
        return _read_campaign(path)
    except InputError as error:
        raise InputError(f"campaign {path}{_failing_line(error, path)}: {error}") from error


def shipped_campaigns(shipped: Path) -> list[str]:
    """Return the names of the campaigns in the folder of those that ship with the product."""
    return sorted(path.stem for path in shipped.glob("*.py") if not path.stem.startswith("_"))


def _find_file(wanted: str, shipped: Path) -> Path:
    if wanted.endswith(".py") or "/" in wanted:
        path = Path(wanted).expanduser().resolve()
        if not path.is_file():
            raise InputError(f"there is no campaign file {wanted}")
        return path
    name = wanted.replace("-", "_")
    names = shipped_campaigns(shipped)
    if name not in names:
        near = get_close_matches(name, names, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names) or 'none'}"
        raise InputError(
            f"there is no campaign {wanted!r}: {advice}; "
            "one of your own is given by its path, ending in .py"
        )
    return shipped / f"{name}.py"


def _read_campaign(path: Path) -> Campaign:
    """Run the file and read its campaign. Every exception that it raises becomes an InputError."""
    spec = spec_from_file_location(f"campaign_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError("it is no Python file")
    module = module_from_spec(spec)
    try:
        with _importing_beside(path.parent):
            spec.loader.exec_module(module)
            function = getattr(module, "chains", None)
            if not callable(function):
                raise InputError("it has no function chains() that returns the chains")
            returned = function()
        paper = _check_paper(getattr(module, "PAPER", ()))
        search = returned if isinstance(returned, Search) else None
        chains = () if search else _check_chains(returned)
        give = gives_of_file(getattr(module, "RESOURCES", {}))
        question = inspect.getdoc(module) or ""
        return Campaign(path.stem, question, chains, paper, search, give=give)
    except (InputError, KeyboardInterrupt):
        raise
    except ValidationError as error:
        raise InputError(describe_validation_error(error)) from error
    except (Exception, SystemExit) as error:
        raise InputError(f"{type(error).__name__}: {error}") from error


def _check_chains(returned: object) -> tuple[Chain, ...]:
    """Return what chains() returned as a tuple. Raise InputError for anything but chains."""
    if not isinstance(returned, Iterable):
        raise _no_chains(returned, example=returned)
    chains = []
    for item in returned:
        if not isinstance(item, Chain):
            raise _no_chains(returned, example=item)
        # A copy of pydantic's may hold values that nobody checked.
        chains.append(Chain.model_validate(item.model_dump(warnings="none")))
    return tuple(chains)


def _check_paper(paper: object) -> tuple[Expected, ...]:
    """Return PAPER as a tuple. Raise InputError for anything but a sequence of Expected."""
    items = list(paper) if isinstance(paper, Iterable) else [paper]
    wrong = [item for item in items if not isinstance(item, Expected)]
    if wrong or isinstance(paper, str):
        raise InputError(
            "PAPER must be a tuple of stepchain.Expected, such as (Expected(...),); "
            f"it is a {type(paper).__name__}, {paper!r:.80}"
        )
    return tuple(item for item in items if isinstance(item, Expected))


@contextmanager
def _importing_beside(folder: Path) -> Iterator[None]:
    """Let the file import modules beside it; forget them afterwards, for files of other folders."""
    sys.path.append(str(folder))
    before = set(sys.modules)
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            origin = getattr(sys.modules[name], "__file__", None)
            if origin and Path(origin).is_relative_to(folder):
                del sys.modules[name]


def _no_chains(returned: object, example: object) -> InputError:
    return InputError(
        "chains() must return a sequence of chains; "
        f"it returned a {type(returned).__name__}, with {example!r:.80}"
    )


def _failing_line(error: BaseException, path: Path) -> str:
    """Return `, line 12`, the line of the file that failed, or nothing where it is not known."""
    cause = error.__cause__ or error
    if isinstance(cause, SyntaxError) and cause.filename == str(path):
        return f", line {cause.lineno}"
    frames = traceback.extract_tb(cause.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f", line {lines[-1]}" if lines else ""
