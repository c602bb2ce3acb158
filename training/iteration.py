"""One iteration of a step's training, and the method and optimizer that it needs.

`training.fit` is the loop around it. What estimates memory or measures speed runs these same
functions, so that what is measured is what trains.
"""

from importlib import import_module

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

from training.config import MethodConfig
from training.loss_guard import LossGuard
from training.methods.base import Batch, Method, Progress
from training.models.folding import fold_norms, round_convolutions
from training.models.norm import BatchNorm
from training.precision import DTYPES, HALVES
from training.runtime import Runtime


def method_class(config: MethodConfig) -> type[Method]:
    """Return the class that trains by a method's document."""
    module = import_module(f"training.methods.{config.name.replace('-', '_')}")
    return module.Method


def place(method: Method, device: torch.device) -> Method:
    """Move a new method and its previous model to the device and make them ready to train.

    They get the precision of the step. The norms of the previous model are folded. What the step
    freezes is frozen.
    """
    optimization = method.step.optimization
    options = {
        "device": device,
        "dtype": DTYPES[optimization.precision],
        "memory_format": torch.channels_last,
    }
    (previous,) = method.unregistered
    if previous is not None:
        # Not before: the method may have read the parent's weights.
        fold_norms(previous.to(**options))
        if optimization.precision in HALVES:
            round_convolutions(previous, HALVES[optimization.precision])
    method.to(**options).train()
    for module in method.frozen():
        module.requires_grad_(False).eval()
    if optimization.frozen == "statistics":
        for module in method.model.modules():
            if isinstance(module, BatchNorm):
                module.eval()
    return method


def distribute(method: Method, runtime: Runtime) -> nn.Module:
    """Return what is trained: the method, or where there are several workers, DDP around it."""
    if runtime.world_size == 1:
        return method
    on_gpu = runtime.device.type == "cuda"
    return DistributedDataParallel(
        method, forward_sync_buffers=False, gradient_as_bucket_view=on_gpu
    )


def build_optimizer(method: Method, device: torch.device) -> SGD:
    """Return the optimizer of the step; `iterate` sets its learning rates."""
    optimization = method.step.optimization
    on_gpu = device.type == "cuda"
    optimizer = SGD(
        [group | {"lr": group["initial_lr"]} for group in method.parameter_groups()],
        lr=0,
        momentum=optimization.momentum,
        weight_decay=optimization.weight_decay,
        nesterov=True,
        fused=on_gpu,
    )
    if on_gpu and optimization.momentum:
        # The fused kernel makes momentum of memory that it has not set, and leaves it so where the
        # first gradients of float16 overflow.
        for parameter in method.parameters():
            if parameter.requires_grad:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def iterate(
    trained: nn.Module,
    method: Method,
    optimizer: SGD,
    guard: LossGuard,
    batch: Batch,
    progress: Progress,
    rounding: torch.autocast,
    scaler: GradScaler,
) -> dict[str, Tensor]:
    """Train one iteration and return its losses.

    On a GPU the host waits for nothing.

    Args:
        trained: Of `distribute`.
        method: The method itself.
        optimizer: Of `build_optimizer`.
        guard: Looks at the losses.
        batch: This worker's part of the global batch.
        progress: Where the iteration is in the step.
        rounding: The context of the forward pass (`training.precision.autocast`).
        scaler: Of the loss (`training.precision.gradient_scaler`).

    Raises:
        FloatingPointError: On a CPU, a loss is not finite.
    """
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * method.learning_rate_factor(progress, group["name"])
    optimizer.zero_grad()
    with rounding:
        losses: dict[str, Tensor] = trained(batch, progress)
    guard.watch(losses, progress.iteration + 1)
    scaler.scale(torch.stack(list(losses.values())).sum()).backward()
    scaler.unscale_(optimizer)
    with torch.no_grad():
        method.before_update(progress)
    scaler.step(optimizer)
    scaler.update()
    return losses
