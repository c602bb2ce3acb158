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

from orchestrator.cluster.give import Kind, step_kind
from orchestrator.cluster.resources import Request
from orchestrator.planning.resolver import PlannedStep
from orchestrator.planning.step_tree import Node, StepTree
from orchestrator.planning.store_state import StepState, StoredStep
from orchestrator.records import layout
from orchestrator.records.repository import Repository
from orchestrator.records.schema import StepRecord
from orchestrator.store.base import Store
from training.step_config import StepConfig

SAMPLE = 1000  # records that speeds are learned from, at most
# Seconds that compiling an encoder takes in each process, measured on a CPU, and how many times
# faster a GPU may train then, by the model of benchmarks/gpu_model.py. No GPU has shown it.
COMPILE_SECONDS = 60
COMPILE_GAINS = (1.2, 1.35)
NO_OVERHEAD = ("wait", "train")  # of a record's seconds: everything else is overhead


@dataclass(frozen=True)
class Costs:
    """Speeds and overheads of steps with the workers that were asked for."""

    request: Request = field(default_factory=Request)
    speeds: Mapping[Hashable, float] = field(default_factory=dict)
    """Images per second of one worker, by kind of step."""
    overhead: float = 0  # seconds of a step besides training
    guess: float | None = None
    """Images per second of one worker, for kinds of steps without a past record."""

    def seconds(self, planned: PlannedStep) -> float | None:
        """Return how long a step takes, or None if nothing is known of its kind."""
        known = (self.speeds[kind] for kind in _kinds(planned.step) if kind in self.speeds)
        speed = next(known, self.guess)
        if speed is None:
            return None
        workers = self._of(step_kind(planned.index)).workers
        return images(planned) / (speed * workers) + self.overhead

    def gpu_hours(self, seconds: float, kind: Kind = "increment") -> float:
        """Return the GPU-hours of steps of a kind that take `seconds` together."""
        asked = self._of(kind)
        return seconds * asked.workers * (asked.gpus_per_worker or 1) / 3600

    def step_gpu_hours(self, planned: PlannedStep) -> float | None:
        """Return the GPU-hours of a step, or None if nothing is known of its kind."""
        seconds = self.seconds(planned)
        return None if seconds is None else self.gpu_hours(seconds, step_kind(planned.index))

    def _of(self, kind: Kind) -> Request:
        return self.request.of(kind) if self.request.give else self.request


@dataclass(frozen=True)
class CostEstimate:
    """The cost of the rest of a campaign. Seconds are None if one step's are not known."""

    images: int  # to be trained on, each counted once an epoch
    naive_images: int
    seconds: float | None  # of all steps that are left, one after another
    naive_seconds: float | None  # of every chain trained by itself from its beginning
    gpu_hours: float | None  # of the steps that are left
    naive_gpu_hours: float | None
    critical_path: float | None
    """Seconds of the longest path of steps that wait for one another: no cluster is faster."""


def compilation_advice() -> str:
    """Return in a sentence from which length of training on compiling an encoder pays off."""
    longest, shortest = (COMPILE_SECONDS / (1 - 1 / gain) / 60 for gain in COMPILE_GAINS)
    return (
        f"--compile takes about {COMPILE_SECONDS} s in each process and pays off in steps that "
        f"train longer than {shortest:.0f} to {longest:.0f} minutes without it "
        f"({COMPILE_GAINS[0]:g} to {COMPILE_GAINS[1]:g} times faster by a model, not measured)"
    )


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
        if record.adoption:
            continue
        others = [value for name, value in record.seconds.items() if name not in NO_OVERHEAD]
        overheads.append(sum(others))
        if record.images_per_second:
            speed = record.images_per_second / int(record.resources.get("workers", 1))
            for kind in _kinds(record.step):
                speeds[kind].append(speed)
    return Costs(
        request=request,
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
    repository = Repository(store)
    others = sorted(repository.scored_steps() - set(own))[:SAMPLE]
    found = repository.listed(map(layout.step_record, others), StepRecord)
    return [*own.values(), *found]


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
        gpu_hours=_sum([_hours(tree.nodes[key], each, costs) for key, each in left.items()]),
        naive_gpu_hours=_sum(
            [_hours(node, whole[key], costs, len(node.chains)) for key, node in tree.nodes.items()]
        ),
        critical_path=_longest(list(ends.values())),
    )


def _hours(node: Node, seconds: float | None, costs: Costs, times: int = 1) -> float | None:
    """Return the GPU-hours of a step that is trained so many times."""
    if seconds is None:
        return None
    return times * costs.gpu_hours(seconds, step_kind(node.planned.index))


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
