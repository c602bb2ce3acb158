"""MobileNetV2 encoder, with torchvision's parameter names, so that its ImageNet weights load.

The encoder ends with the last inverted residual (`features.17`, 320 channels). What follows in the classifier, `features.18`
(1x1 to 1280 channels), is left out: a linear probe of VOC photos reads as much from the 320, and head and localizer cost a
quarter.
Strides beyond the output stride are dropped and the depthwise convolutions after them dilated, as in `resnet`.
"""

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
    """3x3 convolution of each channel by itself; strided or dilated, never both.

    A dilated one runs undilated on each of the dilation^2 phases of the map, which are the same sums: on CPU the backward
    pass of dilated depthwise convolutions is more than ten times slower than that of others.
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
            input = F.pad(input, (0, right, 0, below))  # zeros, as the convolution's own padding
        cells = input.permute(0, 2, 3, 1)  # channels last: a cell moves as one piece
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


def _unit(convolution: nn.Conv2d, frozen: bool) -> Layers:
    return Layers(convolution, BatchNorm(convolution.out_channels, frozen), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise (stride, dilation), linear 1x1 projection; added to its input where the shapes allow."""

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
        """[B, inputs, h, w] -> [B, outputs, h / stride, w / stride]."""
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """The encoder: [B, 3, H, W] -> [B, 320, H / output_stride, W / output_stride]."""

    channels = 320
    unused = ("classifier.", "features.18.")  # what torchvision's files hold besides the encoder

    def __init__(self, output_stride: int, frozen: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            _unit(nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False), frozen)
        ]
        inputs, reached, dilation = 32, 2, 1
        for expansion, outputs, blocks, stride in STAGES:
            stride, following = (
                (stride, dilation) if reached * stride <= output_stride else (1, dilation * stride)
            )
            for block in range(blocks):
                here = (stride, dilation) if block == 0 else (1, following)
                layers.append(InvertedResidual(inputs, outputs, *here, expansion, frozen))
                inputs = outputs
            reached, dilation = reached * stride, following
        self.features = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def parts(self) -> dict[str, nn.Module]:
        """The encoder as parts that follow each other; a stage is the blocks of one width."""
        parts, first = {"stem": self.features[:1]}, 1
        for number, (_, _, blocks, _) in enumerate(STAGES, start=1):
            parts[f"stage {number}"] = self.features[first : first + blocks]
            first += blocks
        return parts

    def forward(self, images: Tensor) -> Tensor:
        """Features of normalised images."""
        return self.features(images)

    def stages(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Features, and what the last block of each of four stages gives: linear, no activation follows it."""
        maps, x = [], images
        for layer in self.features:
            x = layer(x)
            maps.append(x)
        return x, tuple(maps[end] for end in STAGE_ENDS)


def mobilenet_v2(output_stride: int, frozen: bool = False) -> MobileNetV2:
    """MobileNetV2 (1.8 M parameters up to `features.17`) at output stride 8, 16 or 32."""
    return MobileNetV2(output_stride, frozen)
