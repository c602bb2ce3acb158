"""Describe where one worker of a step runs: its rank, its device and its processes.

None of it changes a result.
"""

from dataclasses import dataclass, field

import psutil
import torch
import torch.distributed as distributed
from torch import Tensor

from training.losses import divide

# The dtype of the weights for each precision; bfloat16 is used by autocast only.
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.float32,
    "float64": torch.float64,
}
MEGABYTE = 1e6  # bytes


@dataclass(frozen=True)
class Runtime:
    """One of `world_size` workers.

    If there are several, torch.distributed is initialised (gloo on CPUs, NCCL on GPUs).
    """

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    loader_workers: int = 0
    checkpoint_every: float = 60.0  # seconds
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


def device_name(device: torch.device) -> str:
    """Return `cpu`, or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
