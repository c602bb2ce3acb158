"""Where steps run: workers, their CPUs and GPUs, and the Ray cluster that has them. Nothing here enters a key.

A job finds the cluster it was submitted to, or RAY_ADDRESS; without either it starts one on this machine, which ends with it.
"""

import os
from collections.abc import Iterable, Sequence

import ray
from pydantic import Field
from ray._private.state import state as ray_state

from training.config import Document

Node = dict[str, float]  # what a machine of the cluster has: CPU, GPU, memory, ...


class Resources(Document):
    """What one step is given while it trains."""

    workers: int = Field(1, ge=1)  # processes that share each batch
    cpus_per_worker: int = Field(1, ge=1)
    gpus_per_worker: float = Field(0, ge=0)
    loader_workers: int = Field(0, ge=0)  # processes that decode images, of each worker
    checkpoint_every: float = Field(60, gt=0)  # seconds

    @property
    def bundle(self) -> Node:
        """What Ray reserves for each worker."""
        gpus = {"GPU": self.gpus_per_worker} if self.gpus_per_worker else {}
        return {"CPU": self.cpus_per_worker, **gpus}


def connect() -> None:
    """Make this process the driver of a Ray cluster, once."""
    if ray.is_initialized():
        return
    quiet = {"logging_level": "warning", "log_to_driver": False}
    if os.environ.get("RAY_ADDRESS"):  # set by hand, or in what `ray job submit` started
        ray.init(**quiet)
        return
    # Read by Ray Train in this process. On one machine nothing is preempted and nobody collects metrics; asking the workers more
    # often how they are makes each step end a second sooner.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    ray.init(address="local", include_dashboard=False, **quiet)


def cluster_nodes() -> list[Node]:
    """The machines of the connected cluster that are alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def default_resources(nodes: Iterable[Node]) -> Resources:
    """One worker: with a GPU and its share of the CPUs where there is one, else with all CPUs of the largest machine."""
    richest = max(nodes, key=lambda node: (node.get("GPU", 0), node.get("CPU", 0)))
    cpus, gpus = int(richest.get("CPU", 1)), int(richest.get("GPU", 0))
    if not gpus:
        return Resources(cpus_per_worker=max(1, cpus))
    share = min(8, max(1, cpus // gpus))
    return Resources(cpus_per_worker=share, gpus_per_worker=1, loader_workers=share - 1)


def check_batches(resources: Resources, batches: Sequence[int]) -> None:
    """Raise ValueError unless the workers divide each of the global batches evenly."""
    for batch in batches:
        if batch % resources.workers:
            fitting = [count for count in range(1, resources.workers) if batch % count == 0]
            raise ValueError(
                f"{resources.workers} workers cannot share a batch of {batch} images evenly: use {fitting[-1]} workers, or another batch"
            )


def autoscales() -> bool:
    """Whether the connected cluster adds machines by itself. Ray Train then refuses by itself what it can never place."""
    # No public call tells; Ray Train asks in the same way.
    return ray_state.get_max_resources_from_cluster_config() is not None


def check_cluster(resources: Resources, nodes: Sequence[Node]) -> None:
    """Raise ValueError when these machines could never hold all workers at once: they would wait for ever."""
    bundle = resources.bundle
    room = sum(min(int(node.get(name, 0) // amount) for name, amount in bundle.items()) for node in nodes)
    if room < resources.workers:
        wanted = " and ".join(f"{amount:g} {name}" for name, amount in bundle.items())
        raise ValueError(
            f"the cluster has room for {room} workers with {wanted} each, and {resources.workers} are asked for: ask for fewer or smaller "
            "workers (--workers, --cpus-per-worker, --gpus-per-worker), or add machines"
        )
