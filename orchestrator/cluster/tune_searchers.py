"""Ask Ray Tune's search algorithms for the next sample of a campaign.

A searcher is made for one question and told the whole past: the samples so far, as points that it
must name first, and their scores. So it keeps nothing that could be lost, and its answer follows
from what the store holds.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

from ray.air.constants import TRAINING_ITERATION
from ray.tune.search import Searcher

from orchestrator.cluster.search_spaces import rounded, searcher_name
from training.config import InputError

# Takes the samples that the searcher must name first, and a seed.
MakeSearcher = Callable[[list[dict[str, Any]], int], Searcher]
METRIC = "miou"
FINISHED = "finished"


class PastSample(NamedTuple):
    """A sample that was named before, and what has become of it."""

    values: Mapping[str, Any]  # by field
    outcome: Literal["running", "scored", "stopped", "failed"]
    scores: tuple[float, ...] = ()
    """Mean mIoU over the seeds after each step, of a sample that was scored or stopped."""


def next_values(
    make: str | MakeSearcher, spaces: Mapping[str, Any], past: Sequence[PastSample], seed: int
) -> dict[str, Any] | Literal["finished"] | None:
    """Return the values of the next sample by field, as they enter a document.

    Args:
        make: `optuna`, or a function that returns a searcher of Tune's.
        spaces: Tune's search spaces by field.
        past: All samples so far, in order.
        seed: Of this question alone.

    Returns:
        The values; None if the searcher waits for more scores; `finished` if it names no more.

    Raises:
        InputError: The searcher is not installed, it fails, or does not begin with the past.
    """
    try:
        searcher = _make(make, [dict(sample.values) for sample in past], seed)
        if not searcher.set_search_properties(METRIC, "max", dict(spaces)):
            raise InputError("it must be made without a space, a metric and a mode of its own")
        for number, sample in enumerate(past):
            _replay(searcher, str(number), sample, spaces)
        named = searcher.suggest("next")
    except Exception as error:
        kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
        raise InputError(f"the searcher {searcher_name(make)!r}: {kind}{error}") from error
    if named is None or named == Searcher.FINISHED:
        return None if named is None else FINISHED
    return {field: rounded(space, named[field]) for field, space in spaces.items()}


def _make(make: str | MakeSearcher, points: list[dict[str, Any]], seed: int) -> Searcher:
    if not isinstance(make, str):
        return make(points, seed)
    if find_spec("optuna") is None:
        raise InputError("the package optuna is not installed: pip install 'stepchain[search]'")
    from ray.tune.search.optuna import OptunaSearch

    logging.getLogger("optuna").setLevel(logging.WARNING)  # it tells of each study that it makes
    return OptunaSearch(points_to_evaluate=points, seed=seed)


def _replay(searcher: Searcher, trial: str, sample: PastSample, spaces: Mapping[str, Any]) -> None:
    """Let the searcher name a sample of the past, and tell it what has become of it."""
    named = searcher.suggest(trial)
    point = {field: rounded(spaces[field], value) for field, value in (named or {}).items()}
    if point != dict(sample.values):
        raise InputError(
            "it must name the points that it is given first (points_to_evaluate), and it named "
            f"{point} for {dict(sample.values)}"
        )
    match sample.outcome:
        case "scored":
            searcher.on_trial_complete(trial, {METRIC: sample.scores[-1]})
        case "stopped":
            # Without a result and without an error it is pruned after these scores.
            for step, score in enumerate(sample.scores):
                searcher.on_trial_result(trial, {METRIC: score, TRAINING_ITERATION: step})
            searcher.on_trial_complete(trial)
        case "failed":
            searcher.on_trial_complete(trial, error=True)
        case "running":
            pass
