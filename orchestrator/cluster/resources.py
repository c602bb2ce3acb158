"""Where steps run: workers, their CPUs and GPUs, and the Ray cluster that has them. Nothing here enters a key.

A job finds the cluster it was submitted to, or RAY_ADDRESS; without either it starts one on this machine, which ends with it.
"""

from collections.abc import Iterable, Sequence

from pydantic import Field

from training.config import Document, InputError

Node = dict[str, float]  # what a machine of the cluster has: CPU, GPU, memory, ...


class Request(Document):
    """What a person asks for; what is left open, the cluster decides (`settle`)."""

    workers: int = Field(default=1, ge=1)  # processes that share each batch
    cpus_per_worker: int | None = Field(default=None, ge=1)
    gpus_per_worker: float | None = Field(default=None, ge=0)
    loader_workers: int | None = Field(
        default=None, ge=0
    )  # of each worker: processes that decode images
    checkpoint_every: float = Field(default=60, gt=0)  # seconds


class Resources(Document):
    """What one step is given while it trains."""

    workers: int
    cpus_per_worker: int
    gpus_per_worker: float
    loader_workers: int
    checkpoint_every: float

    @property
    def bundle(self) -> Node:
        """What Ray reserves for each worker."""
        gpus = {"GPU": self.gpus_per_worker} if self.gpus_per_worker else {}
        return {"CPU": self.cpus_per_worker, **gpus}


def settle(request: Request, nodes: Iterable[Node]) -> Resources:
    """Fill in what the request leaves open: a GPU for each worker where there are GPUs, and its share of a machine's CPUs.

    Images are decoded by processes beside a GPU, and by the worker itself where it needs the CPUs to train.
    """
    richest = max(nodes, key=lambda node: (node.get("GPU", 0), node.get("CPU", 0)))
    cpus, gpus = int(richest.get("CPU", 1)), int(richest.get("GPU", 0))
    gpus_each = request.gpus_per_worker if request.gpus_per_worker is not None else min(1, gpus)
    sharing = gpus / gpus_each if gpus and gpus_each else request.workers
    share = max(1, int(cpus // sharing))
    cpus_each = request.cpus_per_worker or (min(8, share) if gpus_each else share)
    loaders = (
        request.loader_workers
        if request.loader_workers is not None
        else (cpus_each - 1 if gpus_each else 0)
    )
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
                f"{workers} workers cannot share a batch of {batch} images evenly: use {fitting[-1]} workers, or another batch"
            )


def room(resources: Resources, nodes: Sequence[Node]) -> int:
    """How many workers these machines hold at once."""
    return sum(
        min(int(node.get(name, 0) // amount) for name, amount in resources.bundle.items())
        for node in nodes
    )


def check_cluster(resources: Resources, nodes: Sequence[Node]) -> None:
    """Raise InputError when these machines could never hold all workers at once: they would wait for ever."""
    found = room(resources, nodes)
    if found < resources.workers:
        wanted = " and ".join(f"{amount:g} {name}" for name, amount in resources.bundle.items())
        raise InputError(
            f"the cluster has room for {found} workers with {wanted} each, and {resources.workers} are asked for: ask for "
            "fewer or smaller workers (--workers, --cpus-per-worker, --gpus-per-worker), or add machines"
        )
