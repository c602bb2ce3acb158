"""Say before anything is spent how much memory a step needs, and refuse what cannot fit.

The numbers are those of `training.memory_estimate`. Steps of a campaign that differ only in their
data, their seed or the weights of losses need the same, so each kind is estimated once, at its most
classes.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.cluster.give import Kind, step_kind
from orchestrator.cluster.packing import Node
from orchestrator.cluster.resources import ACCELERATOR, Request, Resources
from orchestrator.planning.resolver import PlannedStep
from training.config import MethodConfig

if TYPE_CHECKING:
    from training.memory_estimate import MemoryEstimate

# Ray's names of GPUs, as in the resource accelerator_type:A10G, and their memory in gigabytes; of
# two sizes the larger.
GPU_GIGABYTES = {
    "T4": 16,
    "V100": 34,
    "P100": 17,
    "A10G": 24,
    "L4": 24,
    "L40S": 48,
    "A100": 85,
    "A100-40G": 42,
    "H100": 85,
    "H20": 103,
    "H200": 151,
    "RTX-PRO-6000": 103,
    "B200": 206,
    "B300": 310,
}


@dataclass(frozen=True)
class MemoryNeed:
    """The step that needs most, and what each of its workers needs."""

    planned: PlannedStep
    estimate: "MemoryEstimate"
    share: float | None = None  # of a GPU that each worker asks for, if it is less than one

    def __str__(self) -> str:
        """Return the need in words."""
        gigabytes = self.estimate.needed / 1e9
        step = f"step {self.planned.index}, {self.planned.step.method.name}"
        text = f"memory: about {gigabytes:.1f} GB a worker ({step})"
        if self.share is None:
            return text
        whole = gigabytes / self.share
        return f"{text}; at {self.share:g} of a GPU each, the GPU must have {whole:.1f} GB"


def memory_needs(steps: Iterable[PlannedStep], request: Request) -> tuple[MemoryNeed, ...]:
    """Return the largest need of all steps, or of each kind of step where these are given others.

    Args:
        steps: The steps that are to be trained.
        request: What workers are asked for.
    """
    by_kind: dict[Kind, list[PlannedStep]] = {}
    for planned in steps:
        kind = step_kind(planned.index)
        by_kind.setdefault(kind if request.give else "increment", []).append(planned)
    needs = []
    for kind, of_kind in by_kind.items():
        asked = request.of(kind)
        need = largest_need(of_kind, asked.workers)
        gpus = asked.gpus_per_worker
        if need:
            needs.append(replace(need, share=gpus if gpus and gpus < 1 else None))
    return tuple(needs)


def largest_need(steps: Iterable[PlannedStep], workers: int) -> MemoryNeed | None:
    """Return the need of the step that needs most memory; None if there are no steps.

    Args:
        steps: The steps that are to be trained.
        workers: They share each batch.
    """
    # A plan of published steps does without torch.
    from training.memory_estimate import estimate_memory

    kinds: dict[Hashable, PlannedStep] = {}
    for planned in steps:
        kind = _kind(planned)
        if kind not in kinds or _channels(planned) > _channels(kinds[kind]):
            kinds[kind] = planned
    needs = [MemoryNeed(each, estimate_memory(each.step, workers)) for each in kinds.values()]
    return max(needs, key=lambda need: need.estimate.peak, default=None)


def check_memory(need: MemoryNeed | None, resources: Resources, nodes: Iterable[Node]) -> None:
    """Raise InputError if no machine of the cluster can hold a worker.

    GPUs whose type Ray does not name are not judged.

    Args:
        need: The most that a step needs.
        resources: Of each step's workers.
        nodes: The cluster's machines.
    """
    from training.memory_estimate import check_fits

    if need is None:
        return
    gpu = resources.gpus_per_worker > 0
    reserved = resources.memory_per_worker
    if reserved and not gpu:
        where = "each worker's reservation (--memory-per-worker)"
        check_fits(need.planned.step, need.estimate, reserved * 1e9, where)
    if resources.accelerator:
        nodes = [node for node in nodes if f"{ACCELERATOR}{resources.accelerator}" in node]
    places = [_gpu_memory(node) if gpu else _host_memory(node) for node in nodes]
    known = [place for place in places if place is not None]
    if known and len(known) == len(places):
        available, where = max(known)
        if 0 < resources.gpus_per_worker < 1:
            available *= resources.gpus_per_worker
            where = f"{resources.gpus_per_worker:g} of {where}"
        check_fits(need.planned.step, need.estimate, available, where)


def _kind(planned: PlannedStep) -> Hashable:
    """Return what decides a step's memory, but for its classes."""
    step = planned.step
    return (
        step.model.model_copy(update={"weights": None}),
        _structure(step.method),
        step.optimization.batch,
        step.optimization.precision,
        step.optimization.frozen,
        step.augmentation.crop,
        step.task.supervision,
        step.task.memory is not None,
        len(step.task.groups) > 1,
    )


def _structure(method: MethodConfig) -> Hashable:
    """Return the fields of a method's document that are no weights of losses."""
    fields = dict(method)
    return tuple((name, value) for name, value in fields.items() if not isinstance(value, float))


def _channels(planned: PlannedStep) -> int:
    return sum(planned.step.task.channels)


def _gpu_memory(node: Node) -> tuple[float, str] | None:
    """Return the bytes of a machine's GPUs and their name; 0 for a machine without GPUs."""
    if not node.get("GPU"):
        return 0.0, "a machine without GPUs"
    for name in node:
        gigabytes = GPU_GIGABYTES.get(name.removeprefix(ACCELERATOR))
        if name.startswith(ACCELERATOR) and gigabytes:
            return gigabytes * 1e9, f"the cluster's largest GPU, {name.removeprefix(ACCELERATOR)},"
    return None


def _host_memory(node: Node) -> tuple[float, str] | None:
    """Return the bytes that Ray gives out of a machine's memory, its object store included."""
    memory = node.get("memory")
    if memory is None:
        return None
    return memory + node.get("object_store_memory", 0), "the cluster's largest machine"
