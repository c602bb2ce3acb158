"""Read Ray Tune's search spaces: `tune.uniform(0, 1)`, `tune.choice(("bce", "fixed"))` ...

Nothing here imports Ray by itself. A value can only be one of Tune's spaces if the caller has
imported Tune.
"""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from training.config import InputError

# Significant digits of a drawn number. The last digits of a logarithm differ between machines, and
# a key must not. People can also read and type what is left.
DIGITS = 4
QUANTIZED_DIGITS = 12  # of a multiple of q; only the noise of the multiplication is rounded away


def is_space(value: object) -> bool:
    """Return True for a search space of Tune's."""
    sample = sys.modules.get("ray.tune.search.sample")
    return sample is not None and isinstance(value, sample.Domain)


def grid_values(value: Any) -> Any:
    """Return the values of `tune.grid_search(values)`, or the value itself if it is none."""
    is_grid = isinstance(value, Mapping) and list(value) == ["grid_search"]
    return value["grid_search"] if is_grid else value


def check_space(field: str, space: Any) -> None:
    """Raise InputError for a space from which nothing can be drawn by a seed alone."""
    from ray.tune.search.sample import Categorical, Function

    if isinstance(space, Function):
        raise InputError(
            f"axis {field!r} draws by a function, whose values cannot be checked or repeated: "
            "use tune.uniform, tune.choice or another of Tune's spaces"
        )
    ends = extremes(space)
    if isinstance(space, Categorical) and not ends:
        raise InputError(f"axis {field!r} chooses from nothing: name several values")
    if not isinstance(space, Categorical) and ends and ends[0] > ends[1]:
        raise InputError(
            f"axis {field!r} has no number from {space.lower:g} to {space.upper:g}: give the "
            "smaller bound first (integers end below the upper one)"
        )


def draw(space: Any, seed: int) -> Any:
    """Return a value of the space, drawn by this seed (32 bits) alone.

    NumPy promises that RandomState draws the same numbers in every version.
    """
    return rounded(space, space.sample(random_state=np.random.RandomState(seed)))


def rounded(space: Any, value: Any) -> Any:
    """Return the value as it enters a document: a float has few digits and is within the space."""
    if not isinstance(value, float):
        # NumPy's own types have no canonical JSON.
        return value.item() if isinstance(value, np.generic) else value
    quantum = _quantum(space)
    if quantum:
        # Some searchers leave it out.
        value = round(value / quantum) * quantum
    digits = QUANTIZED_DIGITS if quantum else DIGITS
    short = float(f"{value:.{digits}g}")
    lower = getattr(space, "lower", None)
    upper = getattr(space, "upper", None)
    if lower is not None and upper is not None:
        short = min(max(short, lower), upper)
    return float(short)


def extremes(space: Any) -> list[Any]:
    """Return the values between which a space draws, or all of `tune.choice`, or none."""
    from ray.tune.search.sample import Categorical, Integer

    if isinstance(space, Categorical):
        return list(space.categories)
    if not np.isfinite([space.lower, space.upper]).all():
        return []
    # Tune draws integers below the upper bound, but for multiples.
    last = space.upper - 1 if isinstance(space, Integer) and not _quantum(space) else space.upper
    return [space.lower, last]


def describe_space(space: Any) -> str:
    """Return a space in words: `0 to 1`, `0.0001 to 1, logarithmic`, `bce or fixed`.

    Other spaces have other words, because a list of samples is found by them.
    """
    from ray.tune.search.sample import Categorical, Integer, LogUniform

    if isinstance(space, Categorical):
        return " or ".join(str(getattr(each, "name", each)) for each in space.categories)
    ends = extremes(space)
    words = [f"{ends[0]:.15g} to {ends[1]:.15g}"] if ends else [_normal(space)]
    if isinstance(space, Integer):
        words.append("whole numbers")
    if isinstance(_plain_sampler(space), LogUniform):
        words.append("logarithmic")
    if quantum := _quantum(space):
        words.append(f"in multiples of {quantum:.15g}")
    return ", ".join(words)


def searcher_name(searcher: Any) -> str:
    """Return the name of a searcher, or of the function that makes it."""
    if isinstance(searcher, str):
        return searcher
    return getattr(searcher, "__qualname__", type(searcher).__name__)


def _normal(space: Any) -> str:
    sampler = _plain_sampler(space)
    return f"normal with mean {sampler.mean:.15g} and deviation {sampler.sd:.15g}"


def _quantum(space: Any) -> float | None:
    """Return the number that all values are multiples of, if there is one."""
    return getattr(space.get_sampler(), "q", None)


def _plain_sampler(space: Any) -> Any:
    """Return the sampler of a space, without that it draws multiples."""
    sampler = space.get_sampler()
    return sampler.get_sampler() if hasattr(sampler, "q") else sampler
