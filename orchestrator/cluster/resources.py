"""Decide how many workers, CPUs and GPUs a step gets on the machines of a cluster.

This module is pure and does not import Ray. Nothing here enters a key.
"""

from collections.abc import Iterable, Sequence

from pydantic import Field

from training.config import Document, InputError

# The resources of a machine of the cluster by name: CPU, GPU, memory, ...
Node = dict[str, float]
MOST_CPUS_PER_GPU = 8


class Request(Document):
    """The resources that a person asks for. `settle` fills in None from the cluster."""

    workers: int = Field(default=1, ge=1)  # processes that share each batch
    cpus_per_worker: int | None = Field(default=None, ge=1)
    gpus_per_worker: float | None = Field(default=None, ge=0)
    # Processes of each worker that decode images.
    loader_workers: int | None = Field(default=None, ge=0)
    checkpoint_every: float = Field(default=60, gt=0)  # seconds


class Resources(Document):
    """The resources of one step while it trains."""

    workers: int
    cpus_per_worker: int
    gpus_per_worker: float
    loader_workers: int
    checkpoint_every: float

    @property
    def bundle(self) -> Node:
        """Return what Ray reserves for each worker."""
        gpus = {"GPU": self.gpus_per_worker} if self.gpus_per_worker else {}
        return {"CPU": self.cpus_per_worker, **gpus}


def settle(request: Request, nodes: Iterable[Node]) -> Resources:
    """Fill in what the request leaves open, for the largest of these machines.

    Each worker gets one GPU if there are GPUs, and its share of the machine's CPUs. On a GPU
    machine, separate processes decode images. On a CPU machine the worker itself decodes them,
    because training needs the CPUs.
    """
    richest = max(nodes, key=lambda node: (node.get("GPU", 0), node.get("CPU", 0)))
    cpus = int(richest.get("CPU", 1))
    gpus = int(richest.get("GPU", 0))
    gpus_each = request.gpus_per_worker
    if gpus_each is None:
        gpus_each = min(1, gpus)
    sharing = gpus / gpus_each if gpus and gpus_each else request.workers
    share = max(1, int(cpus // sharing))
    cpus_each = request.cpus_per_worker
    if cpus_each is None:
        cpus_each = min(MOST_CPUS_PER_GPU, share) if gpus_each else share
    loaders = request.loader_workers
    if loaders is None:
        loaders = cpus_each - 1 if gpus_each else 0
    return Resources(
        workers=request.workers,
        cpus_per_worker=cpus_each,
        gpus_per_worker=gpus_each,
        loader_workers=loaders,
        checkpoint_every=request.checkpoint_every,
    )


def check_batches(workers: int, batches: Sequence[int]) -> None:
    """Raise InputError unless the workers divide each of the global batches evenly."""
    for batch in batches:
        if batch % workers:
            fitting = [count for count in range(1, workers) if batch % count == 0]
            raise InputError(
                f"{workers} workers cannot share a batch of {batch} images evenly: "
                f"use {fitting[-1]} workers, or another batch"
            )


def room(resources: Resources, nodes: Sequence[Node]) -> int:
    """Return how many workers these machines hold at once."""
    total = 0
    for node in nodes:
        total += min(int(node.get(name, 0) // amount) for name, amount in resources.bundle.items())
    return total


def check_cluster(resources: Resources, nodes: Sequence[Node]) -> None:
    """Raise InputError if these machines can never hold all workers at once."""
    found = room(resources, nodes)
    if found < resources.workers:
        wanted = " and ".join(f"{amount:g} {name}" for name, amount in resources.bundle.items())
        raise InputError(
            f"the cluster has room for {found} workers with {wanted} each, and "
            f"{resources.workers} are asked for: ask for fewer or smaller workers (--workers, "
            "--cpus-per-worker, --gpus-per-worker), or add machines"
        )
