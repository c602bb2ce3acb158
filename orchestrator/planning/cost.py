"""What steps cost, before they are trained: seconds and GPU-hours, from what steps of the same kind took before.

Training time is images times epochs over a speed, and a speed is measured, never assumed: the median over past records with the
same model, crop and method, else with the same model and crop, else whatever a person says it is. Where there is none of these,
a cost is None, and a plan shows images times epochs. Starting, fetching, scoring and publishing take the median of what they
took. A GPU-hour is an hour of one worker's GPU; where steps ran and run without a GPU it is an hour of one worker.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from orchestrator.cluster.resources import Request
from orchestrator.planning.resolver import PlannedStep
from orchestrator.planning.step_tree import StepTree
from orchestrator.planning.store_state import StoredStep
from orchestrator.records import layout
from orchestrator.records.repository import Repository
from orchestrator.records.schema import StepRecord
from orchestrator.store.base import Store
from training.config import StepConfig

SAMPLE = 1000  # records that are read to learn speeds from
OVERHEAD = (
    "start",
    "localise",
    "publish",
    "evaluate",
    "stop",
)  # of a record's seconds: what a step takes besides training


@dataclass(frozen=True)
class Costs:
    """What steps take with the workers that were asked for."""

    workers: int = 1
    gpus: float = 1  # of each worker; 1 as well where there are none
    speeds: Mapping[Hashable, float] = field(
        default_factory=dict
    )  # images per second of one worker, by kind of step
    overhead: float = 0  # seconds of a step besides training
    guess: float | None = (
        None  # images per second of one worker, for a kind of step that has no past
    )

    def seconds(self, planned: PlannedStep) -> float | None:
        """How long a step takes, None when nothing is known of its kind."""
        known = (self.speeds[kind] for kind in _kinds(planned.step) if kind in self.speeds)
        speed = next(known, self.guess)
        return None if speed is None else images(planned) / (speed * self.workers) + self.overhead

    def gpu_hours(self, seconds: float) -> float:
        """What steps that take so long together take of the workers' GPUs."""
        return seconds * self.workers * self.gpus / 3600


@dataclass(frozen=True)
class CostEstimate:
    """What a campaign costs from here on, and what it would cost without sharing; seconds are None where one is not known."""

    images: int  # to be trained on, counted once an epoch
    naive_images: int
    seconds: float | None  # of all steps that are left, one after another
    naive_seconds: float | None  # of every chain trained by itself from its beginning
    critical_path: (
        float | None
    )  # seconds of the longest run of steps that wait for one another: no cluster is faster


def images(planned: PlannedStep) -> int:
    """How many images training reads, each counted once an epoch."""
    return planned.iterations * planned.step.optimization.batch


def measure(records: Iterable[StepRecord], request: Request, guess: float | None = None) -> Costs:
    """Learn what steps take from past records. `guess`: images per second of one worker, where no record tells."""
    speeds: dict[Hashable, list[float]] = defaultdict(list)
    overheads = []
    for record in records:
        overheads.append(sum(record.seconds.get(part, 0.0) for part in OVERHEAD))
        if record.images_per_second:
            for kind in _kinds(record.step):
                speeds[kind].append(
                    record.images_per_second / int(record.resources.get("workers", 1))
                )
    return Costs(
        workers=request.workers,
        gpus=request.gpus_per_worker or 1,
        speeds={kind: median(values) for kind, values in speeds.items()},
        overhead=median(overheads) if overheads else 0,
        guess=guess,
    )


def _kinds(step: StepConfig) -> tuple[Hashable, Hashable]:
    """The kind of a step with its method, and without: steps of one kind are about equally fast."""
    model = step.model.model_copy(
        update={"weights": None}
    )  # how it starts does not change how fast it is
    kind = (model, step.augmentation.crop, step.optimization.precision)
    return (*kind, step.method.name), kind


def past_records(store: Store, standings: Mapping[str, StoredStep]) -> list[StepRecord]:
    """Records to learn from: the campaign's own, and others of the store up to a number that is read in seconds."""
    own = {key: standing.record for key, standing in standings.items() if standing.record}
    # Every published step has an evaluation; below steps/ there are many times as many objects.
    scored = {layout.step_of(name) for name in store.list(layout.EVALUATIONS)}
    others = sorted(scored - set(own))[:SAMPLE]
    found = Repository(store).find_steps(others)
    return [*own.values(), *filter(None, found)]


def estimate_cost(
    tree: StepTree, standings: Mapping[str, StoredStep], costs: Costs
) -> CostEstimate:
    """What the campaign costs; of a step that only has to be scored, the overhead."""
    whole = {key: costs.seconds(node.planned) for key, node in tree.nodes.items()}
    left = {key: _left(standings[key], costs, seconds) for key, seconds in whole.items()}
    ends: dict[str, float | None] = {}  # when each node can be done at the earliest
    for key, node in tree.nodes.items():
        ends[key] = _sum([ends[node.parent] if node.parent is not None else 0.0, left[key]])
    wanted = {key: len(node.chains) for key, node in tree.nodes.items()}
    to_train = [node.planned for key, node in tree.nodes.items() if standings[key].record is None]
    return CostEstimate(
        images=sum(map(images, to_train)),
        naive_images=sum(wanted[key] * images(node.planned) for key, node in tree.nodes.items()),
        seconds=_sum(list(left.values())),
        naive_seconds=_sum(
            [None if seconds is None else wanted[key] * seconds for key, seconds in whole.items()]
        ),
        critical_path=None
        if None in ends.values()
        else max(filter(None, ends.values()), default=0.0),
    )


def _left(standing: StoredStep, costs: Costs, seconds: float | None) -> float | None:
    if standing.state == "published":
        return 0.0
    return costs.overhead if standing.state == "to score" else seconds


def _sum(parts: Sequence[float | None]) -> float | None:
    """The sum, None if one of them is not known."""
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None
