"""Define a batch norm that is exact on any number of workers, and the layers built around it.

Three facts to know:
1. In training on several workers, the statistics are those of the global batch
   (`training.models.global_norm`).
2. A frozen norm never leaves evaluation mode: `train()` does not change it.
3. A norm with fixed statistics is an affine map. It is folded into the convolution before it, which
   saves one pass over the feature maps, forward and backward.

Parameters and buffers are named as in `nn.BatchNorm2d`, so pretrained weights load.
"""

from typing import Literal, Self

from torch import Tensor, nn

from training.models.global_norm import MOMENTUM, global_batch_norm, statistics_group

Activation = Literal["relu", "leaky_relu"]
LEAKY_SLOPE = 0.01


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
        group = statistics_group() if self.training else None
        if group is None:
            return super().forward(input)
        self.num_batches_tracked.add_(1)
        running = self.running_mean, self.running_var
        return global_batch_norm(input, self.weight, self.bias, running, self.eps, group)


def convolve(convolution: nn.Conv2d, norm: nn.Module, x: Tensor) -> Tensor:
    """Return `norm(convolution(x))`; where the norm's statistics are fixed, by one convolution.

    The gradients reach the kernel, weight and bias as they would through the norm.

    Args:
        convolution: The convolution; one with a bias is not folded.
        norm: The norm that follows it.
        x: [B, C, h, w].
    """
    if norm.training or not isinstance(norm, BatchNorm) or convolution.bias is not None:
        return norm(convolution(x))
    kernel, bias = fold(convolution, norm)
    # Conv2d.forward calls the same method, so a subclass computes the convolution its own way.
    return convolution._conv_forward(x, kernel, bias)


def fold(convolution: nn.Conv2d, norm: BatchNorm) -> tuple[Tensor, Tensor]:
    """Return kernel and bias of the convolution that equals `norm` after `convolution`.

    With s = weight / sqrt(running_var + eps) they are W * s and bias - s * running_mean.
    """
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    kernel = convolution.weight * scale[:, None, None, None]
    return kernel, norm.bias - scale * norm.running_mean


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
