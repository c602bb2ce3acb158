"""Estimate what a searched campaign will cost, before its samples are known."""

from typing import Any, NamedTuple

from orchestrator.cluster.search_spaces import extremes
from orchestrator.planning.cost import Costs, images
from orchestrator.planning.planner import Planner
from orchestrator.planning.resolver import PlannedStep
from orchestrator.planning.search import Search, Values


class SearchEstimate(NamedTuple):
    """How far a search is, and what the samples to come will cost."""

    searcher: str
    samples: int  # those to come too
    known: int  # samples that the store holds, or the first
    bounds: dict[str, str]  # search spaces in words, by field
    shared_steps: int  # of each chain, which all samples share
    images: int  # of the samples to come, each counted once an epoch
    gpu_hours: float | None  # None if a step's are not known

    def document(self) -> dict[str, Any]:
        """Return the estimate as a JSON document."""
        return self._asdict()


def first_own_step(search: Search, planner: Planner) -> int:
    """Return the index of the first step whose key depends on the sample, at least 1 of T."""
    (sample,) = search.random_samples(1)
    keys = _keys(search, sample, planner)
    first = len(keys) - 1
    # Two samples may agree in a field by chance, so each field is varied alone.
    for field, space in search.spaces.items():
        for value in extremes(space):
            others = _keys(search, sample | {field: value}, planner)
            pairs = enumerate(zip(keys, others, strict=False))
            own = next((index for index, (one, other) in pairs if one != other), first)
            first = min(first, own)
    return first


def _keys(search: Search, sample: Values, planner: Planner) -> list[str]:
    """Return the keys of the steps of a sample's first chain."""
    return [step.key for step in planner.plan(search.chains(sample)[0]).steps]


def estimate_search(search: Search, planner: Planner, costs: Costs) -> SearchEstimate:
    """Return what the samples to come will cost, as a drawn one would."""
    shared = first_own_step(search, planner)
    (sample,) = search.random_samples(1)
    own: list[PlannedStep] = []
    for chain in search.chains(sample):
        own += planner.plan(chain).steps[shared:]
    left = search.count - len(search.samples)
    hours = [costs.step_gpu_hours(step) for step in own]
    known = [each for each in hours if each is not None]
    return SearchEstimate(
        searcher=search.searcher_name,
        samples=search.count,
        known=len(search.samples),
        bounds=search.bounds,
        shared_steps=shared,
        images=left * sum(map(images, own)),
        gpu_hours=left * sum(known) if len(known) == len(hours) else None,
    )
