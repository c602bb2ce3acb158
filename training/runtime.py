"""Describe where one worker of a step runs: its rank, its device and its processes.

None of it changes a result.
"""

from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch
import torch.distributed as distributed
from torch import Tensor

from training.losses import divide
from training.precision import uses_tf32

MEGABYTE = 1e6  # bytes


@dataclass(frozen=True)
class Runtime:
    """One of `world_size` workers.

    If there are several, torch.distributed is initialised (gloo on CPUs, NCCL on GPUs).
    """

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    gpu_share: float = 1.0  # of the device's memory that the worker may use, if it is a GPU
    loader_workers: int = 0
    checkpoint_every: float = 60.0  # seconds
    # The folder of compiled code; None compiles nothing.
    compile_cache: Path | None = None
    log_every: int = 10  # iterations; checkpoints are taken at logged iterations only

    @property
    def leads(self) -> bool:
        """Return whether this worker writes for all workers."""
        return self.rank == 0

    def usage(self) -> dict[str, float]:
        """Return what this worker uses, by the names that the rows of the curves have.

        The CPUs' utilization is that of the whole machine since the last call.
        """
        used = {
            "usage/cpu_percent": psutil.cpu_percent(),
            "usage/process_megabytes": psutil.Process().memory_info().rss / MEGABYTE,
        }
        if self.device.type == "cuda":
            used["usage/gpu_megabytes"] = torch.cuda.max_memory_allocated(self.device) / MEGABYTE
        return used

    def mean(self, total: Tensor, weight: Tensor, epsilon: float = 0.0) -> Tensor:
        """Return the weighted mean over all workers (a `training.losses.Mean`).

        Each worker divides by the mean weight, because DistributedDataParallel averages the
        gradients.
        """
        return self.world_size * divide(total, self.all_sum(weight.detach()), epsilon)

    def all_sum(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over all workers, without gradient."""
        if self.world_size == 1:
            return values
        values = values.clone()
        distributed.all_reduce(values)
        return values

    def wait_for_all(self) -> None:
        """Return when every worker has called it."""
        self.all_sum(torch.zeros((), device=self.device)).item()


def device_name(device: torch.device) -> str:
    """Return `cpu`, or the GPU's name, and whether it rounds float32 factors to TF32."""
    if device.type != "cuda":
        return device.type
    name = torch.cuda.get_device_name(device)
    return f"{name}, TF32" if uses_tf32(device) else name
