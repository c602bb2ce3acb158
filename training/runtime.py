"""Where one worker of a step runs: its rank, device and threads. Nothing here may change a result."""

from dataclasses import dataclass, field

import psutil
import torch
import torch.distributed as distributed
from torch import Tensor

from training.losses import divide

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.float32,
    "float64": torch.float64,
}  # of the weights


@dataclass(frozen=True)
class Runtime:
    """One of `world_size` workers. With more than one, torch.distributed is initialised (gloo on CPU, nccl on GPU)."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    loader_workers: int = 0
    checkpoint_every: float = 60.0  # seconds
    log_every: int = 10  # iterations; checkpoints are taken at logged iterations only

    @property
    def leads(self) -> bool:
        """Whether this worker writes for all."""
        return self.rank == 0

    def usage(self) -> dict[str, float]:
        """What this worker takes, by the names of MLflow's system metrics; of the CPUs of its machine: since last asked."""
        megabytes = 1e6
        used = {
            "system/cpu_utilization_percentage": psutil.cpu_percent(),
            "system/process_memory_megabytes": psutil.Process().memory_info().rss / megabytes,
        }
        if self.device.type == "cuda":
            used["system/gpu_memory_megabytes"] = (
                torch.cuda.max_memory_allocated(self.device) / megabytes
            )
        return used

    def mean(self, total: Tensor, weight: Tensor, epsilon: float = 0.0) -> Tensor:
        """`training.losses.Mean` over all workers: DDP averages gradients, so each worker divides by the mean weight."""
        return self.world_size * divide(total, self.all_sum(weight.detach()), epsilon)

    def all_sum(self, values: Tensor) -> Tensor:
        """Sum of `values` over all workers, without gradient."""
        if self.world_size == 1:
            return values
        values = values.clone()
        distributed.all_reduce(values)
        return values
