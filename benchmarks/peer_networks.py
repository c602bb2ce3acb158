"""Define the networks of the published code in plain torch, for `benchmarks.peer`.

They are written out without anything that makes them faster: each norm is a pass of its own, the
dilated convolutions take all their taps, and the pooled branch of the head is repeated to the size
of the map before it is convolved. Entries are named as in `training.models`, so weights load.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.config import ModelConfig

Activation = Callable[[], nn.Module]
RESNETS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
# expansion, output channels, blocks, stride of the first block
MOBILENET_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
HEAD_DILATIONS = {8: (12, 24, 32), 16: (6, 12, 18)}


def convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Conv2d:
    """Return a convolution that keeps the size of the map, but for its stride."""
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)


def strides_and_dilations(strides: list[int], reached: int, output_stride: int) -> list[list[int]]:
    """Return stride, first dilation and following dilation of each stage.

    Strides beyond the output stride become dilations.
    """
    found = []
    dilation = 1
    for stride in strides:
        if reached * stride <= output_stride:
            found.append([stride, dilation, dilation])
            reached *= stride
        else:
            found.append([1, dilation, dilation * stride])
            dilation *= stride
    return found


class Bottleneck(nn.Module):
    """Add a branch of three convolutions to the shortcut (He et al., 2016)."""

    def __init__(
        self, inputs: int, width: int, stride: int, dilation: int, act: Activation
    ) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3, stride, dilation)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = convolution(width, 4 * width, 1)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.act = act()
        self.downsample = None
        if stride != 1 or inputs != 4 * width:
            shortcut = convolution(inputs, 4 * width, 1, stride)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, inputs, h, w] to [B, 4 * width, h / stride, w / stride]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.act(self.bn1(self.conv1(x)))
        x = self.act(self.bn2(self.conv2(x)))
        return self.act(self.bn3(self.conv3(x)) + shortcut)


class ResNet(nn.Sequential):
    """Map images to features, [B, 2048, h, w]."""

    channels = 2048

    def __init__(self, config: ModelConfig, act: Activation) -> None:
        super().__init__()
        self.conv1 = convolution(3, 64, 7, 2)
        self.bn1 = nn.BatchNorm2d(64)
        self.act = act()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = 64
        blocks = RESNETS[config.encoder]
        plan = strides_and_dilations([1, 2, 2, 2], 4, config.output_stride)
        for stage, (count, (stride, first, following)) in enumerate(zip(blocks, plan, strict=True)):
            width = 64 * 2**stage
            first = following if config.dilated_blocks == "all" else first
            layers = [Bottleneck(inputs, width, stride, first, act)]
            inputs = 4 * width
            layers += [Bottleneck(inputs, width, 1, following, act) for _ in range(count - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))


class InvertedResidual(nn.Module):
    """Expand, convolve depthwise, project linearly (Sandler et al., 2018)."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, dilation: int, expansion: int
    ) -> None:
        super().__init__()
        hidden = expansion * inputs
        layers = [] if expansion == 1 else [relu6_unit(convolution(inputs, hidden, 1))]
        depthwise = convolution(hidden, hidden, 3, stride, dilation, groups=hidden)
        layers += [relu6_unit(depthwise), convolution(hidden, outputs, 1), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, inputs, h, w] to [B, outputs, h / stride, w / stride]."""
        return x + self.conv(x) if self.residual else self.conv(x)


def relu6_unit(conv: nn.Conv2d) -> nn.Sequential:
    """Return the convolution, its norm and a ReLU6."""
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU6(inplace=True))


class MobileNetV2(nn.Module):
    """Map images to features, [B, 320, h, w]."""

    channels = 320

    def __init__(self, output_stride: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [relu6_unit(convolution(3, 32, 3, 2))]
        inputs = 32
        plan = strides_and_dilations([stage[3] for stage in MOBILENET_STAGES], 2, output_stride)
        for (expansion, outputs, blocks, _), (stride, first, following) in zip(
            MOBILENET_STAGES, plan, strict=True
        ):
            for block in range(blocks):
                here = (1, following) if block else (stride, first)
                layers.append(InvertedResidual(inputs, outputs, *here, expansion))
                inputs = outputs
        self.features = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Return the features of normalised images."""
        return self.features(images)


class Head(nn.Module):
    """Map features to what the classifiers read: four branches, plus a pooled one."""

    def __init__(self, inputs: int, config: ModelConfig, act: Activation) -> None:
        super().__init__()
        width = config.head_channels
        self.pooling = config.eval_pooling
        self.branches = nn.ModuleList([convolution(inputs, width, 1)])
        for dilation in HEAD_DILATIONS[config.output_stride]:
            self.branches.append(convolution(inputs, width, 3, dilation=dilation))
        self.branches_norm = nn.BatchNorm2d(4 * width)
        self.reduce = convolution(4 * width, width, 1)
        self.pooled_reduce = convolution(inputs, width, 1)
        self.pooled_norm = nn.BatchNorm2d(width)
        self.pooled_expand = convolution(width, width, 1)
        self.norm = nn.BatchNorm2d(width)
        self.act = act()

    def forward(self, features: Tensor) -> Tensor:
        """Return [B, head channels, h, w]."""
        x = torch.cat([branch(features) for branch in self.branches], dim=1)
        x = self.reduce(self.act(self.branches_norm(x)))
        pooled = self.act(self.pooled_norm(self.pooled_reduce(self.pool(features))))
        return self.act(self.norm(x + self.pooled_expand(pooled)))

    def pool(self, features: Tensor) -> Tensor:
        """Return the mean, in training, or the means of a sliding window, at evaluation."""
        if self.training or self.pooling is None:
            return features.mean((2, 3), keepdim=True)
        height, width = (min(self.pooling, side) for side in features.shape[2:])
        pooled = F.avg_pool2d(features, (height, width), stride=1)
        left, top = (width - 1) // 2, (height - 1) // 2
        return F.pad(pooled, (left, width - 1 - left, top, height - 1 - top), mode="replicate")


class Segmenter(nn.Module):
    """Encoder, head and one 1x1 classifier for each step."""

    def __init__(self, config: ModelConfig, channels: tuple[int, ...]) -> None:
        super().__init__()
        act = activation(config)
        if config.encoder == "mobilenet_v2":
            self.encoder = MobileNetV2(config.output_stride)
        else:
            self.encoder = ResNet(config, act)
        self.head = Head(self.encoder.channels, config, act)
        width = config.head_channels
        self.classifiers = nn.ModuleList(nn.Conv2d(width, count, 1) for count in channels)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the encoder's features and the logits, both at its stride."""
        features = self.encoder(images)
        head = self.head(features)
        return features, torch.cat([classifier(head) for classifier in self.classifiers], dim=1)


def localizer(inputs: int, width: int, classes: int, act: Activation) -> nn.Module:
    """Return WILSON's localizer: two 3x3 convolutions and a classifier."""
    model = nn.Sequential()
    first = [convolution(inputs, width, 3), nn.BatchNorm2d(width), act()]
    second = [convolution(width, width, 3), nn.BatchNorm2d(width), act()]
    model.add_module("body", nn.Sequential(*first, *second))
    model.add_module("classifier", nn.Conv2d(width, classes, 1))
    return model


def activation(config: ModelConfig) -> Activation:
    """Return what builds the activation of head, localizer and ResNet."""
    if config.activation == "relu":
        return lambda: nn.ReLU(inplace=True)
    return lambda: nn.LeakyReLU(0.01, inplace=True)
