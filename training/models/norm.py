"""Batch normalisation that is exact on any number of workers, and the layers built around it.

Three things a newcomer needs. (1) In training on several workers the statistics are those of the global batch:
torch's SyncBatchNorm refuses CPU tensors, so the moments are gathered here, by code that runs on gloo and nccl alike.
(2) A frozen norm is one that never leaves evaluation mode: `train()` cannot thaw it. (3) A norm with fixed statistics is
an affine map, so it is folded into the convolution before it: one pass over the feature maps less, forward and backward.
Parameter and buffer names are those of `nn.BatchNorm2d`, so pretrained weights load.
"""

from typing import Any, Literal, Self

import torch
import torch.distributed as distributed
from torch import Tensor, nn
from torch.nn import functional as F

Activation = Literal["relu", "leaky_relu"]
LEAKY_SLOPE = 0.01
MOMENTUM = 0.1  # share of the newest batch in the running statistics


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the global batch; `frozen` normalises by the running statistics always, and keeps them.

    The affine parameters of a frozen norm are trained like any other.
    """

    running_mean: Tensor  # the base class allows for norms without statistics
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int, frozen: bool = False) -> None:
        super().__init__(channels, momentum=MOMENTUM)
        self.frozen = frozen
        self.train()

    def train(self, mode: bool = True) -> Self:
        """As `nn.Module.train`, but a frozen norm stays in evaluation mode."""
        return super().train(mode and not self.frozen)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise [B, C, h, w]; in training also update the running statistics, alike on every worker."""
        if not (
            self.training and distributed.is_initialized() and distributed.get_world_size() > 1
        ):
            return super().forward(input)
        output, mean, variance, count = _GlobalBatchNorm.apply(
            input, self.weight, self.bias, self.eps
        )  # pyright: ignore[reportGeneralTypeIssues]
        with torch.no_grad():
            self.running_mean.lerp_(mean, MOMENTUM)
            self.running_var.lerp_(variance * (count / (count - 1)), MOMENTUM)
            self.num_batches_tracked.add_(1)
        return output


class _GlobalBatchNorm(torch.autograd.Function):
    """Batch norm over all workers: one gather forward, one reduction backward.

    Forward returns the output, and the mean, biased variance and count of the global batch (not differentiable). Gradients
    of weight and bias are this worker's share, as DDP expects. Mean and centred variance of each worker are combined (Chan
    et al.) instead of summing squares, which would cancel.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        variance, mean = torch.var_mean(x.to(weight.dtype), dim=(0, 2, 3), correction=0)
        size = x.numel() // x.shape[1]
        mine = torch.cat([mean, variance, mean.new_tensor([size])])[None]
        everyone = mine.new_empty(distributed.get_world_size(), mine.shape[1])
        distributed.all_gather_single(everyone, mine)
        means, variances, counts = everyone.split([len(mean), len(mean), 1], dim=1)
        count = counts.sum()
        mean = (means * counts).sum(0) / count
        variance = ((variances + (means - mean).square()) * counts).sum(0) / count
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt(), count)
        ctx.mark_non_differentiable(mean, variance, count)
        return (
            F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps),
            mean,
            variance,
            count,
        )

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, scale, count = ctx.saved_tensors  # scale = 1 / standard deviation
        gradient = grads[0].to(weight.dtype)
        centred = x.to(weight.dtype) - _per_channel(mean)
        total, projected = gradient.sum((0, 2, 3)), (gradient * centred).sum((0, 2, 3)) * scale
        summed = torch.cat([total, projected])
        distributed.all_reduce(summed)
        mean_gradient, mean_projected = (summed / count).chunk(2)
        centred = centred * _per_channel(mean_projected * scale)
        gradient = (gradient - _per_channel(mean_gradient) - centred) * _per_channel(weight * scale)
        return gradient.to(x.dtype), projected, total, None


def _per_channel(values: Tensor) -> Tensor:
    return values[:, None, None]


def convolve(convolution: nn.Conv2d, norm: nn.Module, x: Tensor) -> Tensor:
    """`norm(convolution(x))`; where the norm's statistics are fixed, as one convolution.

    With s = weight / sqrt(running_var + eps), the kernel is W * s and the bias is bias - s * running_mean. The gradients reach
    W, weight and bias as they would through the norm.
    """
    if norm.training or not isinstance(norm, BatchNorm) or convolution.bias is not None:
        return norm(convolution(x))
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    # What Conv2d.forward calls, with another kernel: a subclass computes it its own way.
    return convolution._conv_forward(
        x, convolution.weight * scale[:, None, None, None], norm.bias - scale * norm.running_mean
    )


class Layers(nn.Sequential):
    """Layers in order, in which every convolution is followed by its norm and the two run by `convolve`."""

    def forward(self, input: Tensor) -> Tensor:
        """Run the layers on [B, C, h, w]."""
        layers = iter(self)
        for layer in layers:
            input = (
                convolve(layer, next(layers), input)
                if isinstance(layer, nn.Conv2d)
                else layer(input)
            )
        return input


def activation(name: Activation) -> nn.Module:
    """ReLU or leaky ReLU (slope 0.01), in place: no layer before it needs its own output for the backward pass."""
    return nn.ReLU(inplace=True) if name == "relu" else nn.LeakyReLU(LEAKY_SLOPE, inplace=True)
