"""Define the encoder MobileNetV2 (Sandler et al., 2018), by torchvision's names.

The encoder ends with the last inverted residual (`features.17`, 320 channels). `features.18`, a 1x1
convolution to 1280 channels, is left out: a linear probe of VOC photos reads as much from the 320
channels, and head and localizer cost a quarter. Strides beyond the output stride are dropped, and
the depthwise convolutions after them dilated, as in `training.models.resnet`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.norm import BatchNorm, Layers

# expansion, output channels, blocks, stride of the first block
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# The last layers of strides 4, 8, 16 and 32, which stand for a ResNet's four stages.
STAGE_ENDS = (3, 6, 13, 17)


class Depthwise(nn.Conv2d):
    """Convolve each channel by itself with a 3x3 kernel; strided or dilated, never both.

    On CPUs a dilated convolution runs undilated on each of the dilation^2 phases of the map. The
    sums are the same, and the backward pass of dilated depthwise convolutions is more than ten
    times slower there.
    """

    def __init__(self, channels: int, stride: int, dilation: int) -> None:
        super().__init__(channels, channels, 3, stride, dilation, dilation, channels, bias=False)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        step = self.dilation[0]
        if step == 1 or input.is_cuda:
            return super()._conv_forward(input, weight, bias)
        height, width = input.shape[-2:]
        below, right = -height % step, -width % step
        if below or right:
            # Zeros, like the convolution's own padding.
            input = F.pad(input, (0, right, 0, below))
        # With channels last, a cell moves as one piece.
        cells = input.permute(0, 2, 3, 1)
        batch, rows, columns, channels = cells.shape
        phases = cells.view(batch, rows // step, step, columns // step, step, channels).permute(
            2, 4, 0, 1, 3, 5
        )
        phases = phases.reshape(-1, rows // step, columns // step, channels)
        output = F.conv2d(
            phases.permute(0, 3, 1, 2), weight, bias, padding=1, groups=channels
        ).permute(0, 2, 3, 1)
        output = output.reshape(step, step, batch, rows // step, columns // step, channels).permute(
            2, 3, 0, 4, 1, 5
        )
        return output.reshape(cells.shape).permute(0, 3, 1, 2)[..., :height, :width]


class ReLU6(nn.Module):
    """Compute min(max(x, 0), 6) in place.

    torch's own, in place, copies its input for the backward pass. The output serves as well, and
    the next convolution keeps it anyway.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Overwrite the input, of any shape, and return it."""
        if torch.compiler.is_compiling():
            # The compiler finds out by itself what to keep.
            return F.relu6(input)
        return _ReLU6.apply(input)  # pyright: ignore[reportReturnType]


class _ReLU6(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor) -> Tensor:
        output = input.clamp_(0, 6)
        ctx.mark_dirty(output)
        ctx.save_for_backward(output)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (output,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradients[0], output, 0, 6)


def _unit(convolution: nn.Conv2d, frozen: bool) -> Layers:
    return Layers(convolution, BatchNorm(convolution.out_channels, frozen), ReLU6())


class InvertedResidual(nn.Module):
    """Expand by 1x1, convolve depthwise by 3x3 (stride, dilation) and project linearly by 1x1.

    Where the shapes allow, the input is added: y = x + project(depthwise(expand(x))).
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, dilation: int, expansion: int, frozen: bool
    ) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [_unit(nn.Conv2d(inputs, hidden, 1, bias=False), frozen)] if expansion > 1 else []
        depthwise = _unit(Depthwise(hidden, stride, dilation), frozen)
        self.conv = Layers(
            *expand,
            depthwise,
            nn.Conv2d(hidden, outputs, 1, bias=False),
            BatchNorm(outputs, frozen),
        )
        self.residual = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, inputs, h, w] to [B, outputs, h / stride, w / stride]."""
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """Map images [B, 3, H, W] to features [B, 320, H / output_stride, W / output_stride]."""

    channels = 320
    unused = ("classifier.", "features.18.")

    def __init__(self, output_stride: int, frozen: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            _unit(nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False), frozen)
        ]
        inputs = 32
        reached = 2
        dilation = 1
        for expansion, outputs, blocks, stride in STAGES:
            stride, following = (
                (stride, dilation) if reached * stride <= output_stride else (1, dilation * stride)
            )
            for block in range(blocks):
                here = (stride, dilation) if block == 0 else (1, following)
                layers.append(InvertedResidual(inputs, outputs, *here, expansion, frozen))
                inputs = outputs
            reached *= stride
            dilation = following
        self.features = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def parts(self) -> dict[str, nn.Module]:
        """Return the encoder as parts that follow each other; a stage has blocks of one width."""
        parts = {"stem": self.features[:1]}
        first = 1
        for number, (_, _, blocks, _) in enumerate(STAGES, start=1):
            parts[f"stage {number}"] = self.features[first : first + blocks]
            first += blocks
        return parts

    def forward(self, images: Tensor) -> Tensor:
        """Return the features of normalised images."""
        return self.features(images)

    def stages(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the features, and the outputs of the last block of each of four stages.

        These blocks end linearly, so no activation follows.
        """
        maps = []
        x = images
        for layer in self.features:
            x = layer(x)
            maps.append(x)
        return x, tuple(maps[end] for end in STAGE_ENDS)


def mobilenet_v2(output_stride: int, frozen: bool = False) -> MobileNetV2:
    """Return MobileNetV2 (1.8 M parameters up to `features.17`) at output stride 8, 16 or 32."""
    return MobileNetV2(output_stride, frozen)
