"""Normalise over the batches of all workers, with the device's own kernels.

All workers have equal shares of a global batch, so counts are not exchanged. The statistics have a
process group of their own: in the gradients' group, small messages would wait behind large ones.
"""

from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.distributed as distributed
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.nn import functional as F

MOMENTUM = 0.1  # share of the newest batch in the running statistics

_groups: WeakKeyDictionary[ProcessGroup, ProcessGroup] = WeakKeyDictionary()


def statistics_group() -> ProcessGroup | None:
    """Return the group of all workers that statistics are exchanged in; None for a single worker.

    It is made once for each group of workers, however many steps they train, and all workers make
    it at their first norm. It ends with `destroy_process_group`.
    """
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return None
    world = distributed.group.WORLD
    assert world is not None
    if world not in _groups:
        made = distributed.new_group()
        assert isinstance(made, ProcessGroup)
        _groups[world] = made
    return _groups[world]


def global_batch_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running: tuple[Tensor, Tensor],
    eps: float,
    group: ProcessGroup,
) -> Tensor:
    """Return `x` normalised over the batches of all workers, and update the running statistics.

    With m_r and v_r the mean and biased variance of worker r, and means over the workers,

        m = mean(m_r),  v = mean(v_r + (m_r - m)^2),  y = weight * (x - m) / sqrt(v + eps) + bias

    Sums of squares would lose digits instead. The gradients of weight and bias are this worker's
    share, as DistributedDataParallel expects.

    Args:
        x: [B, C, h, w], the same shape on all workers; it may have half precision.
        weight: [C].
        bias: [C].
        running: Mean and variance, each [C].
        eps: Added to the variance.
        group: The workers.
    """
    kernels = _DeviceKernels if x.is_cuda else _HostKernels
    return kernels.apply(  # pyright: ignore[reportReturnType]
        x, weight, bias, *running, eps, group
    )


class _HostKernels(torch.autograd.Function):
    """By ATen's kernels for one worker, and an affine correction of the gradient.

    With g the gradient of the output, s = 1 / sqrt(v + eps) and z = s (x - m), the kernel returns

        weight * s * (g - mean(g) - z mean(g z))

    with means over this worker's batch. Their differences to the means over all workers make an
    affine map of x, which is added.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_variance: Tensor,
        eps: float,
        group: ProcessGroup,
    ) -> Tensor:
        mean, variance = _moments(x, eps, weight.dtype)
        means, variances = _gather(torch.cat([mean, variance]), group).chunk(2, 1)
        mean = means.mean(0)
        variance = (variances + (means - mean).square()).mean(0)
        workers = len(means)
        count = workers * x.numel() // x.shape[1]
        running_mean.lerp_(mean, MOMENTUM)
        running_variance.lerp_(variance * (count / (count - 1)), MOMENTUM)
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps, ctx.group, ctx.count, ctx.workers = eps, group, count, workers
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance = ctx.saved_tensors
        scale = (variance + ctx.eps).rsqrt()
        gradient, projected, total = torch.ops.aten.native_batch_norm_backward(
            gradients[0], x, weight, None, None, mean, scale, True, ctx.eps, [True, True, True]
        )
        own = torch.cat([total, projected])
        everyone = own.clone()
        distributed.all_reduce(everyone, group=ctx.group)
        difference = (own * ctx.workers - everyone) / ctx.count
        shift, slope = (difference * (weight * scale).repeat(2)).chunk(2)
        # Not in half precision: a map that is nearly constant would be rounded to one side.
        whole = x.to(weight.dtype)
        change = F.batch_norm(whole, mean, variance, slope, shift, training=False, eps=ctx.eps)
        gradient = change.add_(gradient).to(x.dtype)
        return gradient, projected, total, None, None, None, None


class _DeviceKernels(torch.autograd.Function):
    """By the kernels of torch's SyncBatchNorm, which itself makes the host wait for the counts."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_variance: Tensor,
        eps: float,
        group: ProcessGroup,
    ) -> Tensor:
        x = _dense(x)
        mean, scale = torch.batch_norm_stats(x, eps)
        means, scales = _gather(torch.cat([mean, scale]), group).chunk(2, 1)
        size = x.numel() // x.shape[1]
        workers = len(means)
        counts = torch.full((workers,), size, dtype=running_mean.dtype, device=x.device)
        mean, scale = torch.batch_norm_gather_stats_with_counts(
            x,
            means.contiguous(),
            scales.contiguous(),
            running_mean,
            running_variance,
            MOMENTUM,
            eps,
            counts,
        )
        ctx.save_for_backward(x, weight, mean, scale, counts.to(torch.int32))
        ctx.group = group
        return torch.batch_norm_elemt(x, weight, bias, mean, scale, eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, counts = ctx.saved_tensors
        gradient = _dense(gradients[0])
        total, projected, weight_gradient, bias_gradient = torch.batch_norm_backward_reduce(
            gradient, x, mean, scale, weight, True, True, True
        )
        everyone = torch.cat([total, projected])
        distributed.all_reduce(everyone, group=ctx.group)
        total, projected = everyone.chunk(2)
        gradient = torch.batch_norm_backward_elemt(
            gradient, x, mean, scale, weight, total, projected, counts
        )
        return gradient, weight_gradient, bias_gradient, None, None, None, None


def _moments(x: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of the channels of this worker's batch."""
    if x.dtype != dtype:
        variance, mean = torch.var_mean(x.to(dtype), dim=(0, 2, 3), correction=0)
        return mean, variance
    # The kernel is several times faster than var_mean.
    _, mean, scale = torch.ops.aten._native_batch_norm_legit.no_stats(x, None, None, True, 0.0, eps)
    return mean, (scale.pow(-2) - eps).clamp_(min=0)


def _gather(values: Tensor, group: ProcessGroup) -> Tensor:
    """Return the values of all workers, [workers, len(values)]."""
    everyone = values.new_empty(distributed.get_world_size(group), len(values))
    distributed.all_gather_single(everyone, values[None], group=group)
    return everyone


def _dense(x: Tensor) -> Tensor:
    """Return `x` in one of the two layouts that the kernels read."""
    if x.is_contiguous(memory_format=torch.channels_last):
        return x
    return x.contiguous()
