"""Where steps run: workers, their CPUs and GPUs, and the Ray cluster that has them. Nothing here enters a key.

A job finds the cluster it was submitted to, or RAY_ADDRESS; without either it starts one on this machine, which ends with it.
"""

import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import ray
from pydantic import Field
from ray._private import worker as ray_worker
from ray._private.state import state as ray_state

from training.config import Document, InputError

Node = dict[str, float]  # what a machine of the cluster has: CPU, GPU, memory, ...


class Request(Document):
    """What a person asks for; what is left open, the cluster decides (`settle`)."""

    workers: int = Field(default=1, ge=1)  # processes that share each batch
    cpus_per_worker: int | None = Field(default=None, ge=1)
    gpus_per_worker: float | None = Field(default=None, ge=0)
    loader_workers: int | None = Field(default=None, ge=0)  # of each worker: processes that decode images
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


def connect(dashboard: bool = False) -> None:
    """Make this process the driver of a Ray cluster, once.

    `dashboard`: a local cluster gets one. Ray asks it which of its processes are alive when one of those that start workers is
    lost; without it the room of these workers is never given back.
    """
    if ray.is_initialized():
        return
    quiet = {"logging_level": "error", "log_to_driver": False}
    if os.environ.get("RAY_ADDRESS"):  # set by hand, or in what `ray job submit` started
        with _keeping_sigterm():
            ray.init(**quiet)
        return
    # Read by Ray Train in this process. On one machine nothing is preempted and nobody collects metrics; asking the workers
    # more often how they are makes each step end a second sooner.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    # Threads that wait must not spin: on a machine that does anything else, two of them on two cores stand still.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for patient in (True, True, False):
        try:
            with _keeping_sigterm():
                ray.init(address="local", include_dashboard=dashboard, **quiet)
            _hide_token()
            return
        except Exception as error:  # the class that Ray raises when its processes need over 30 s to start
            if not patient or "timed out during startup" not in str(error):
                raise
            ray.shutdown()


def _hide_token() -> None:
    """Ray makes a token for clusters of this machine, in a file that everybody may read."""
    with suppress(FileNotFoundError, PermissionError):
        (Path.home() / ".ray" / "auth_token").chmod(0o600)


@contextmanager
def _keeping_sigterm() -> Iterator[None]:
    """Ray has SIGTERM end the process as it connects; whoever listened to it before goes on doing so."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(handler) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def dashboard_address() -> str | None:
    """Where the dashboard of the connected cluster is, as its own machines reach it."""
    connect()
    url = ray_worker.get_dashboard_url()
    return f"http://{url}" if url else None


def cluster_nodes() -> list[Node]:
    """The machines of the connected cluster that are alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


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
    loaders = request.loader_workers if request.loader_workers is not None else (cpus_each - 1 if gpus_each else 0)
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


def autoscales() -> bool:
    """Whether the connected cluster adds machines by itself. Ray Train then refuses by itself what it can never place."""
    # No public call tells; Ray Train asks in the same way.
    return ray_state.get_max_resources_from_cluster_config() is not None


def steps_at_once(resources: Resources) -> int:
    """How many steps the connected cluster can train side by side, at its largest if it grows by itself; at least 1."""
    largest = ray_state.get_max_resources_from_cluster_config()
    nodes = [Node(largest)] if largest else cluster_nodes()
    return max(1, room(resources, nodes) // resources.workers)


def room(resources: Resources, nodes: Sequence[Node]) -> int:
    """How many workers these machines hold at once."""
    return sum(min(int(node.get(name, 0) // amount) for name, amount in resources.bundle.items()) for node in nodes)


def check_cluster(resources: Resources, nodes: Sequence[Node]) -> None:
    """Raise InputError when these machines could never hold all workers at once: they would wait for ever."""
    found = room(resources, nodes)
    if found < resources.workers:
        wanted = " and ".join(f"{amount:g} {name}" for name, amount in resources.bundle.items())
        raise InputError(
            f"the cluster has room for {found} workers with {wanted} each, and {resources.workers} are asked for: ask for "
            "fewer or smaller workers (--workers, --cpus-per-worker, --gpus-per-worker), or add machines"
        )
