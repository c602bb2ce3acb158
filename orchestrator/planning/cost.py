"""Estimate what steps cost from what steps of the same kind took before.

Training time is images times epochs over a speed. A speed is measured, never assumed: the median
over past records with the same model, crop and method, else with the same model and crop, else a
person's guess. Without any of these a cost is None, and a plan shows images times epochs. Starting,
fetching, scoring and publishing take the median of what they took before.

A GPU-hour is an hour of one worker's GPU. Without GPUs it is an hour of one worker.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from orchestrator.cluster.resources import Request
from orchestrator.planning.resolver import PlannedStep
from orchestrator.planning.step_tree import StepTree
from orchestrator.planning.store_state import StepState, StoredStep
from orchestrator.records import layout
from orchestrator.records.repository import Repository
from orchestrator.records.schema import StepRecord
from orchestrator.store.base import Store
from training.config import StepConfig

SAMPLE = 1000  # records that speeds are learned from, at most
NO_OVERHEAD = ("wait", "train")  # of a record's seconds: everything else is overhead


@dataclass(frozen=True)
class Costs:
    """Speeds and overheads of steps with the workers that were asked for."""

    workers: int = 1
    gpus: float = 1  # of each worker; 1 as well without GPUs
    speeds: Mapping[Hashable, float] = field(default_factory=dict)
    """Images per second of one worker, by kind of step."""
    overhead: float = 0  # seconds of a step besides training
    guess: float | None = None
    """Images per second of one worker, for kinds of steps without a past record."""

    def seconds(self, planned: PlannedStep) -> float | None:
        """Return how long a step takes, or None if nothing is known of its kind."""
        known = (self.speeds[kind] for kind in _kinds(planned.step) if kind in self.speeds)
        speed = next(known, self.guess)
        return None if speed is None else images(planned) / (speed * self.workers) + self.overhead

    def gpu_hours(self, seconds: float) -> float:
        """Return the GPU-hours of steps that take `seconds` together."""
        return seconds * self.workers * self.gpus / 3600


@dataclass(frozen=True)
class CostEstimate:
    """The cost of the rest of a campaign. Seconds are None if one step's are not known."""

    images: int  # to be trained on, each counted once an epoch
    naive_images: int
    seconds: float | None  # of all steps that are left, one after another
    naive_seconds: float | None  # of every chain trained by itself from its beginning
    critical_path: float | None
    """Seconds of the longest path of steps that wait for one another: no cluster is faster."""


def images(planned: PlannedStep) -> int:
    """Return how many images training reads, each counted once an epoch."""
    return planned.iterations * planned.step.optimization.batch


def measure(records: Iterable[StepRecord], request: Request, guess: float | None = None) -> Costs:
    """Learn speeds and overheads from past records.

    Args:
        records: Of published steps.
        request: The workers of the steps that are to be estimated.
        guess: Images per second of one worker, for kinds of steps without a past record.
    """
    speeds: dict[Hashable, list[float]] = defaultdict(list)
    overheads = []
    for record in records:
        others = [value for name, value in record.seconds.items() if name not in NO_OVERHEAD]
        overheads.append(sum(others))
        if record.images_per_second:
            speed = record.images_per_second / int(record.resources.get("workers", 1))
            for kind in _kinds(record.step):
                speeds[kind].append(speed)
    return Costs(
        workers=request.workers,
        gpus=request.gpus_per_worker or 1,
        speeds={kind: median(values) for kind, values in speeds.items()},
        overhead=median(overheads) if overheads else 0,
        guess=guess,
    )


def _kinds(step: StepConfig) -> tuple[Hashable, Hashable]:
    """Return the kind of a step with its method, and without it. Steps of a kind are as fast."""
    # The weights that a model starts from do not change its speed.
    model = step.model.model_copy(update={"weights": None})
    kind = (model, step.augmentation.crop, step.optimization.precision)
    return (*kind, step.method.name), kind


def past_records(store: Store, stored: Mapping[str, StoredStep]) -> list[StepRecord]:
    """Return records to learn from: the campaign's own, and at most SAMPLE others of the store."""
    own = {key: step.record for key, step in stored.items() if step.record}
    # Every published step has an evaluation, and there are far fewer objects below evaluations/
    # than below steps/.
    published = {layout.step_of(name) for name in store.list(layout.EVALUATIONS)}
    others = sorted(published - set(own))[:SAMPLE]
    found = Repository(store).find_steps(others)
    return [*own.values(), *filter(None, found)]


def estimate_cost(tree: StepTree, stored: Mapping[str, StoredStep], costs: Costs) -> CostEstimate:
    """Return what the rest of a campaign costs. A step to be scored takes the overhead."""
    whole = {key: costs.seconds(node.planned) for key, node in tree.nodes.items()}
    left = {key: _seconds_left(stored[key], costs, seconds) for key, seconds in whole.items()}
    # When each step can end at the earliest.
    ends: dict[str, float | None] = {}
    for key, node in tree.nodes.items():
        start = 0.0 if node.parent is None else ends[node.parent]
        ends[key] = _sum([start, left[key]])
    to_train = [node.planned for key, node in tree.nodes.items() if stored[key].record is None]
    return CostEstimate(
        images=sum(map(images, to_train)),
        naive_images=sum(len(node.chains) * images(node.planned) for node in tree.nodes.values()),
        seconds=_sum(list(left.values())),
        naive_seconds=_naive_seconds(tree, whole),
        critical_path=_longest(list(ends.values())),
    )


def _naive_seconds(tree: StepTree, whole: Mapping[str, float | None]) -> float | None:
    """Return how long all chains take when each is trained by itself, or None if unknown."""
    of_nodes: list[float | None] = []
    for key, node in tree.nodes.items():
        seconds = whole[key]
        of_nodes.append(None if seconds is None else len(node.chains) * seconds)
    return _sum(of_nodes)


def _longest(values: Sequence[float | None]) -> float | None:
    """Return the largest value, 0 of none, or None if one of the values is not known."""
    known = [value for value in values if value is not None]
    return max(known, default=0.0) if len(known) == len(values) else None


def _seconds_left(step: StoredStep, costs: Costs, seconds: float | None) -> float | None:
    """Return how long the rest of a step takes that takes `seconds` as a whole."""
    match step.state:
        case StepState.PUBLISHED:
            return 0.0
        case StepState.TO_SCORE:
            return costs.overhead
        case _:
            return seconds


def _sum(values: Sequence[float | None]) -> float | None:
    """Return the sum, or None if one of the values is not known."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
