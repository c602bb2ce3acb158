"""Define a batch norm that is exact on any number of workers, and the layers built around it.

Three facts to know:
1. In training on several workers, the statistics are those of the global batch. torch's
   SyncBatchNorm refuses CPU tensors, so the moments are gathered here, on gloo and nccl alike.
2. A frozen norm never leaves evaluation mode: `train()` does not change it.
3. A norm with fixed statistics is an affine map. It is folded into the convolution before it, which
   saves one pass over the feature maps, forward and backward.

Parameters and buffers are named as in `nn.BatchNorm2d`, so pretrained weights load.
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
    """Normalise over the global batch: y = weight * (x - mean) / sqrt(variance + eps) + bias.

    Args:
        channels: Of the input.
        frozen: Always normalise by the running statistics, and never change them. Weight and bias
            are trained all the same.
    """

    running_mean: Tensor  # the base class allows for norms without statistics
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int, frozen: bool = False) -> None:
        super().__init__(channels, momentum=MOMENTUM)
        self.frozen = frozen
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Set training mode as `nn.Module.train` does; a frozen norm stays in evaluation mode."""
        return super().train(mode and not self.frozen)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise [B, C, h, w]; in training, also update the running statistics."""
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
    """Normalise over the batches of all workers, by one gather forward and one reduction backward.

    Forward returns the output, and the mean, biased variance and count of the global batch, which
    are not differentiable. With n_r, m_r and v_r the count, mean and variance of worker r (Chan et
    al., 1979),

        n = sum n_r,  m = sum n_r m_r / n,  v = sum n_r (v_r + (m_r - m)^2) / n

    Sums of squares would lose digits instead. With s = 1 / sqrt(v + eps), g the gradient of the
    output and means over the global batch, backward returns

        dx = weight * s * (g - mean(g) - s^2 (x - m) mean(g (x - m)))

    The gradients of weight and bias are this worker's share, as DDP expects.
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
        x, weight, mean, scale, count = ctx.saved_tensors
        gradient = grads[0].to(weight.dtype)
        centred = x.to(weight.dtype) - _per_channel(mean)
        total = gradient.sum((0, 2, 3))
        projected = (gradient * centred).sum((0, 2, 3)) * scale
        summed = torch.cat([total, projected])
        distributed.all_reduce(summed)
        mean_gradient, mean_projected = (summed / count).chunk(2)
        centred = centred * _per_channel(mean_projected * scale)
        gradient = (gradient - _per_channel(mean_gradient) - centred) * _per_channel(weight * scale)
        return gradient.to(x.dtype), projected, total, None


def _per_channel(values: Tensor) -> Tensor:
    return values[:, None, None]


def convolve(convolution: nn.Conv2d, norm: nn.Module, x: Tensor) -> Tensor:
    """Return `norm(convolution(x))`; where the norm's statistics are fixed, by one convolution.

    With s = weight / sqrt(running_var + eps), its kernel is W * s and its bias is
    bias - s * running_mean. The gradients reach W, weight and bias as they would through the norm.

    Args:
        convolution: The convolution; one with a bias is not folded.
        norm: The norm that follows it.
        x: [B, C, h, w].
    """
    if norm.training or not isinstance(norm, BatchNorm) or convolution.bias is not None:
        return norm(convolution(x))
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    kernel = convolution.weight * scale[:, None, None, None]
    bias = norm.bias - scale * norm.running_mean
    # Conv2d.forward calls the same method, so a subclass computes the convolution its own way.
    return convolution._conv_forward(x, kernel, bias)


class Layers(nn.Sequential):
    """Run layers in order; `convolve` runs each convolution and the norm after it."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the last layer's output for [B, C, h, w]."""
        layers = iter(self)
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                input = convolve(layer, next(layers), input)
            else:
                input = layer(input)
        return input


def activation(name: Activation) -> nn.Module:
    """Return a ReLU or leaky ReLU (slope 0.01) that works in place.

    That is safe because no layer before it needs its own output for the backward pass.
    """
    return nn.ReLU(inplace=True) if name == "relu" else nn.LeakyReLU(LEAKY_SLOPE, inplace=True)
