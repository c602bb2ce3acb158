"""Decide how many workers, CPUs and GPUs a step gets on the machines of a cluster.

This module is pure and does not import Ray. Nothing here enters a key.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import Field

from orchestrator.cluster.give import Give, Kind, Placement, parse_custom, parse_give
from orchestrator.cluster.packing import Machines, Node
from orchestrator.cluster.resource_words import shares
from training.config import Document, InputError

MOST_CPUS_PER_GPU = 8
# Ray gives a machine with an A100 the resource accelerator_type:A100.
ACCELERATOR = "accelerator_type:"
# A worker takes little of it, because it says where the worker may run and not how many may.
OF_ACCELERATOR = 0.001


class Request(Document):
    """The resources that a person asks for. `settle` fills in None from the cluster."""

    workers: int = Field(default=1, ge=1)  # processes that share each batch
    cpus_per_worker: int | None = Field(default=None, ge=1)
    gpus_per_worker: float | None = Field(default=None, ge=0)
    # Processes of each worker that decode images.
    loader_workers: int | None = Field(default=None, ge=0)
    checkpoint_every: float = Field(default=60, gt=0)  # seconds
    # Compile the encoder on a GPU.
    compile: bool = False
    # Gigabytes of memory that Ray reserves for each worker.
    memory_per_worker: float | None = Field(default=None, gt=0)
    # Ray's name of the type of GPU that workers need, such as A100.
    accelerator: str | None = None
    # Custom resources of Ray that each worker reserves: fast_disk=1
    custom_resources: tuple[str, ...] = ()
    # How Ray places the workers of a step: on few machines, on many, or only so.
    placement: Placement = "PACK"
    # What a kind of work is given instead, of base, increment, evaluation and probe:
    # base:gpus=1,accelerator=A100 increment:gpus=0.25,memory=8
    give: tuple[str, ...] = ()

    def gives(self, kind: Kind) -> list[Give]:
        """Return what is given to a kind. Raise InputError for a gift that is none."""
        return [give for give in map(parse_give, self.give) if give.kind == kind]

    def of(self, kind: Kind) -> "Request":
        """Return the request for one kind of work. Of two gifts the later counts.

        A probe has one worker, and a GPU only when it is given one.
        """
        update: dict[str, Any] = {"give": ()}
        for give in self.gives(kind):
            update |= _fields_of_gift(give)
        if kind == "probe":
            update |= {"workers": 1, "compile": False}
            if self.gpus_per_worker is None:
                update = {"gpus_per_worker": 0.0} | update
        return self.model_copy(update=update)


def _fields_of_gift(give: Give) -> dict[str, Any]:
    """Return the fields of a request that a gift replaces."""
    fields: dict[str, Any] = {
        "workers": give.workers,
        "cpus_per_worker": give.cpus,
        "gpus_per_worker": give.gpus,
        "loader_workers": give.loaders,
        "memory_per_worker": give.memory,
        "accelerator": give.accelerator,
        "placement": give.placement,
        "custom_resources": give.custom or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


class Resources(Document):
    """The resources of one step while it trains."""

    workers: int
    cpus_per_worker: int
    gpus_per_worker: float
    loader_workers: int
    checkpoint_every: float
    compile: bool = False
    memory_per_worker: float | None = None  # gigabytes
    accelerator: str | None = None
    custom_resources: tuple[str, ...] = ()
    placement: Placement = "PACK"

    @property
    def bundle(self) -> Node:
        """Return what Ray reserves for each worker."""
        bundle: Node = {"CPU": self.cpus_per_worker}
        if self.gpus_per_worker:
            bundle["GPU"] = self.gpus_per_worker
        if self.memory_per_worker:
            bundle["memory"] = self.memory_per_worker * 1e9
        if self.accelerator:
            bundle[f"{ACCELERATOR}{self.accelerator}"] = OF_ACCELERATOR
        return bundle | parse_custom(self.custom_resources)


def settle(request: Request, machines: Machines, sparing: bool = False) -> Resources:
    """Fill in what the request leaves open, for the largest machine that there is or may be.

    The machine must have the accelerator and the custom resources that are asked for.

    Each worker gets one GPU if there are GPUs, and its share of the machine's CPUs. On a GPU
    machine, separate processes decode images. On a CPU machine the worker itself decodes them,
    because training needs the CPUs.

    Args:
        request: What was asked for.
        machines: Of the cluster.
        sparing: Whether workers without a GPU leave the CPUs of a GPU machine to those that train
            there, and take no more than one of these.

    Raises:
        InputError: The workers could not use their GPUs as asked, no machine can train, or it
            cannot be seen whether there will be GPUs.
    """
    uses_gpu = request.gpus_per_worker != 0
    richest = max(
        _fitting(request, machines),
        key=lambda node: (uses_gpu and node.get("GPU", 0), node.get("CPU", 0)),
    )
    cpus = int(richest.get("CPU", 0))
    gpus = int(richest.get("GPU", 0))
    if not cpus and request.cpus_per_worker is None:
        raise InputError(
            "no machine of the cluster offers a CPU, and none that offers one can be seen to "
            "come: start a machine that trains, or say what a worker gets "
            "(--cpus-per-worker, --gpus-per-worker)"
        )
    gpus_each = request.gpus_per_worker
    if gpus_each is None:
        if not gpus and not machines.growth.known:
            raise InputError(
                "the cluster has no GPU now, and whether it can add one cannot be seen: say "
                "--gpus-per-worker 1, or --gpus-per-worker 0 to train on CPUs"
            )
        gpus_each = min(1, gpus)
    cpus_each = request.cpus_per_worker
    if cpus_each is None:
        # How many workers share the machine, and whether there are GPUs that need the other CPUs.
        beside = gpus > 0 and (gpus_each > 0 or sparing)
        sharing = gpus / (gpus_each or 1) if beside else request.workers
        share = max(1, int(cpus // sharing))
        cpus_each = min(MOST_CPUS_PER_GPU, share) if beside or gpus_each else share
    loaders = request.loader_workers
    if loaders is None:
        loaders = cpus_each - 1 if gpus_each else 0
    resources = Resources(
        workers=request.workers,
        cpus_per_worker=cpus_each,
        gpus_per_worker=gpus_each,
        loader_workers=loaders,
        checkpoint_every=request.checkpoint_every,
        compile=request.compile,
        memory_per_worker=request.memory_per_worker,
        accelerator=request.accelerator,
        custom_resources=request.custom_resources,
        placement=request.placement,
    )
    check_gpus(resources)
    return resources


def _fitting(request: Request, machines: Machines) -> list[Node]:
    """Return the machines that have the accelerator and custom resources asked for.

    Raise InputError if there are none, unless machines may come that cannot be seen.
    """
    kinds = machines.kinds()
    needed = list(parse_custom(request.custom_resources))
    if request.accelerator:
        needed.append(f"{ACCELERATOR}{request.accelerator}")
    for name in needed:
        fitting = [node for node in kinds if node.get(name)]
        if not fitting and machines.growth.known:
            start = ACCELERATOR if name.startswith(ACCELERATOR) else ""
            names = set[str]().union(*kinds)
            there = ", ".join(sorted(each for each in names if each.startswith(start)))
            raise InputError(
                f"no machine of the cluster has or may have the resource {name!r}: there are "
                f"{there or 'none of its kind'}"
            )
        kinds = fitting or kinds
    return kinds


def check_gpus(resources: Resources) -> None:
    """Raise InputError for GPUs that the workers could not use as asked."""
    gpus = resources.gpus_per_worker
    if gpus > 1:
        raise InputError(
            f"a worker uses one GPU, and --gpus-per-worker {gpus:g} asks for more: "
            "give each GPU a worker (--workers)"
        )
    if resources.workers > 1 and 0 < gpus < 1:
        raise InputError(
            f"{resources.workers} workers of one step cannot share a GPU, because NCCL connects "
            f"whole GPUs: use --workers 1 with --gpus-per-worker {gpus:g}, or whole GPUs"
        )
    if resources.compile and not gpus:
        raise InputError(
            "--compile is for GPUs: on a CPU the compiled encoder trained digits at 1.05 and "
            "photos at 0.54 times the speed, after one to two minutes of compiling; leave it out"
        )


def settle_kind(request: Request, kind: Kind, machines: Machines) -> Resources:
    """Return what one kind of work is given.

    Raises:
        InputError: The cluster can never hold it.
    """
    try:
        sparing = kind in ("evaluation", "probe")
        resources = settle(request.of(kind), machines, sparing)
        check_cluster(resources, machines)
    except InputError as error:
        if not request.give:
            raise
        raise InputError(f"what the kind of work {kind!r} is given: {error}") from error
    return resources


def check_steps(request: Request, batches: Iterable[tuple[Kind, int]]) -> None:
    """Raise InputError unless the workers of each kind of step divide its batches evenly.

    Args:
        request: The workers.
        batches: The global batch of each step, with the step's kind.
    """
    by_kind: dict[Kind, list[int]] = {}
    for kind, batch in batches:
        by_kind.setdefault(kind, []).append(batch)
    for kind, all_of_kind in by_kind.items():
        check_batches(request.of(kind).workers, all_of_kind)


def check_batches(workers: int, batches: Sequence[int]) -> None:
    """Raise InputError unless the workers divide each of the global batches evenly."""
    for batch in batches:
        if batch % workers:
            fitting = [count for count in range(1, workers) if batch % count == 0]
            raise InputError(
                f"{workers} workers cannot share a batch of {batch} images evenly: "
                f"use {fitting[-1]} workers, or another batch"
            )


def check_cluster(resources: Resources, machines: Machines) -> None:
    """Raise InputError if the cluster can never hold all workers at once."""
    if not machines.growth.known:
        return
    if machines.steps(resources):
        return
    found = machines.room(resources)
    placed = "" if found < resources.workers else f", placed {resources.placement}"
    raise InputError(
        f"the cluster has room for {found} workers with {shares(resources)} each, and "
        f"{resources.workers} are asked for{placed}: ask for fewer or smaller workers (--workers, "
        "--cpus-per-worker, --gpus-per-worker, --placement), or add machines"
    )
