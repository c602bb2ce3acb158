"""The network of a published step in plain PyTorch, from a photo's pixels to a score per class.

This file needs torch and nothing else; an encoder of Transformers needs `library_network.py` beside
it. `python -m jobs.export` writes it beside weights that it exports, so that they load without
Stepchain. It only predicts; its parameters have the names of the exported weights. No line depends
on the size of an image, so the network can be traced for all.
"""

from collections import OrderedDict
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MEAN = (0.485, 0.456, 0.406)  # RGB of ImageNet, of values in 0..1
STD = (0.229, 0.224, 0.225)
# Of the head, by output stride.
DILATIONS = {4: (6, 12, 18), 8: (12, 24, 32), 14: (6, 12, 18), 16: (6, 12, 18), 32: (3, 6, 9)}
TORCHVISION_DILATIONS = DILATIONS | {8: (12, 24, 36)}


class Network(nn.Module):
    """Score the classes at each pixel: uint8 RGB [B, 3, H, W] to float [B, classes, H, W].

    The class of a pixel is the one with the largest score.

    Args:
        model: `encoder`, `output_stride`, `dilated_blocks`, `activation`, `head`, `head_channels`,
            `eval_pooling` and `classifier`, as the weights' metadata name them.
        channels: The classes that each step of training added, background among the first.
    """

    def __init__(self, model: dict[str, Any], channels: list[int]) -> None:
        super().__init__()
        slope = 0.01 if model["activation"] == "leaky_relu" else 0.0
        stride = model["output_stride"]
        if model["encoder"] == "tiny":
            self.encoder, width = Tiny(slope), 32
        elif model["encoder"] == "transformers":
            beside = f"{__package__}.library_network" if __package__ else "library_network"
            self.encoder = import_module(beside).Library(model["backbone"], stride)
            width = self.encoder.width
        elif model["encoder"] == "mobilenet_v2":
            self.encoder, width = MobileNetV2(stride), 320
        else:
            blocks = (3, 4, 6, 3) if model["encoder"] == "resnet50" else (3, 4, 23, 3)
            all_dilated = model.get("dilated_blocks", "later") == "all"
            self.encoder, width = ResNet(blocks, stride, slope, all_dilated), 2048
        heads = model["head_channels"]
        refined = model.get("head", "papers") == "torchvision"
        dilations = TORCHVISION_DILATIONS if refined else DILATIONS
        if model.get("head") == "linear":
            self.head = nn.Sequential(OrderedDict(norm=nn.BatchNorm2d(width)))
        else:
            self.head = Head(width, heads, dilations[stride], model["eval_pooling"], slope, refined)
        self.apart = model.get("classifier", "pointwise") == "ssul"
        if self.apart:
            counts = [channels[0] - 1, *channels[1:]]
            self.classifiers = nn.ModuleList(StepClassifier(heads, n, slope) for n in counts)
            self.background = StepClassifier(heads, 1, slope)
            self.unknown = StepClassifier(heads, 1, slope)
        else:
            self.classifiers = nn.ModuleList(nn.Conv2d(heads, count, 1) for count in channels)

    def forward(self, pixels: Tensor) -> Tensor:
        dtype = next(self.parameters()).dtype
        mean = torch.tensor(MEAN, dtype=dtype, device=pixels.device)[:, None, None] * 255
        std = torch.tensor(STD, dtype=dtype, device=pixels.device)[:, None, None] * 255
        head = self.head(self.encoder((pixels.to(dtype) - mean) / std))
        scores = torch.cat([classifier(head) for classifier in self.classifiers], 1)
        if self.apart:
            together = self.background(head).sigmoid() + self.unknown(head).sigmoid()
            cut = together.clamp(1e-6, 1 - 1e-6)
            background = cut.log() - (-cut).log1p()
            winning = torch.maximum(background, scores.amax(1, keepdim=True) + 0.01)
            scores = torch.cat([torch.where(together > 1, winning, background), scores], 1)
        return F.interpolate(scores, pixels.shape[-2:], mode="bilinear", align_corners=False)


def unit(
    inputs: int, outputs: int, size: int, stride: int = 1, dilation: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Return a convolution that keeps the size at stride 1, and its norm."""
    padding = dilation * (size // 2)
    convolution = nn.Conv2d(inputs, outputs, size, stride, padding, dilation, groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]


class StepClassifier(nn.Module):
    """One of SSUL's classifiers. Unknown's probability is added to background's."""

    def __init__(self, width: int, classes: int, slope: float) -> None:
        super().__init__()
        self.body = nn.Sequential(*unit(width, width, 3), nn.LeakyReLU(slope))
        self.scores = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(self.body(x))


class Head(nn.Module):
    """DeepLabV3's head: four dilations, and a pooled branch that is added.

    torchvision's is refined by one more convolution.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        dilations: tuple[int, ...],
        pooling: int | None,
        slope: float,
        refined: bool,
    ) -> None:
        super().__init__()
        branches = [unit(inputs, width, 1)[0]]
        branches += [unit(inputs, width, 3, dilation=dilation)[0] for dilation in dilations]
        self.branches = nn.ModuleList(branches)
        self.branches_norm = nn.BatchNorm2d(len(branches) * width)
        self.reduce = nn.Conv2d(len(branches) * width, width, 1, bias=False)
        self.pooled_reduce, self.pooled_norm = unit(inputs, width, 1)
        self.pooled_expand = nn.Conv2d(width, width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.act = nn.LeakyReLU(slope)
        self.pooling = pooling
        self.refine = nn.Sequential(*unit(width, width, 3), self.act) if refined else None

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.act(self.pooled_norm(self.pooled_reduce(self.pool(x))))
        x = torch.cat([branch(x) for branch in self.branches], 1)
        x = self.reduce(self.act(self.branches_norm(x)))
        x = self.act(self.norm(x + self.pooled_expand(pooled)))
        return x if self.refine is None else self.refine(x)

    def pool(self, x: Tensor) -> Tensor:
        """Average over a window around each cell, which stays within the map."""
        if self.pooling is None:
            return x.mean((2, 3), keepdim=True)
        rows = averages(x.shape[2], self.pooling, x)
        columns = averages(x.shape[3], self.pooling, x)
        return rows @ x @ columns.T


def averages(length: int, window: int, like: Tensor) -> Tensor:
    """Return the matrix [length, length] that averages over windows along one side."""
    place = torch.arange(length, device=like.device)
    # torch's minimum does not depend on which of the two is smaller when it is traced.
    window = torch.sym_min(window, length)  # pyright: ignore[reportAssignmentType]
    first = (place - (window - 1) // 2).clamp(min=0)
    first = torch.minimum(first, torch.full_like(place, length - window))[:, None]
    inside = (place >= first) & (place < first + window)
    return inside.to(like.dtype) / window


class ResNet(nn.Module):
    """ResNet-50 or 101, whose last stages have dilation instead of stride."""

    def __init__(
        self, blocks: tuple[int, ...], output_stride: int, slope: float, all_dilated: bool
    ) -> None:
        super().__init__()
        self.conv1, self.bn1 = unit(3, 64, 7, 2)
        self.act = nn.LeakyReLU(slope)
        inputs, reached, dilation = 64, 4, 1
        stages = []
        for count, width, stride in zip(blocks, (64, 128, 256, 512), (1, 2, 2, 2), strict=True):
            keeps = reached * stride > output_stride
            later = dilation * stride if keeps else dilation
            stride = 1 if keeps else stride
            first = later if all_dilated else dilation
            stage = [Bottleneck(inputs, width, stride, first, slope)]
            inputs = 4 * width
            stage += [Bottleneck(inputs, width, 1, later, slope) for _ in range(count - 1)]
            stages.append(nn.Sequential(*stage))
            reached *= stride
            dilation = later
        self.layer1, self.layer2, self.layer3, self.layer4 = stages

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.act(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class Bottleneck(nn.Module):
    """Three convolutions and a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int, dilation: int, slope: float) -> None:
        super().__init__()
        self.conv1, self.bn1 = unit(inputs, width, 1)
        self.conv2, self.bn2 = unit(width, width, 3, stride, dilation)
        self.conv3, self.bn3 = unit(width, 4 * width, 1)
        self.act = nn.LeakyReLU(slope)
        changes = stride != 1 or inputs != 4 * width
        self.downsample = (
            nn.Sequential(*unit(inputs, 4 * width, 1, stride)) if changes else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.downsample(x)
        x = self.act(self.bn1(self.conv1(x)))
        x = self.act(self.bn2(self.conv2(x)))
        return self.act(self.bn3(self.conv3(x)) + shortcut)


class MobileNetV2(nn.Module):
    """MobileNetV2 up to its last inverted residual, dilated as the ResNets are."""

    def __init__(self, output_stride: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Sequential(*unit(3, 32, 3, 2), nn.ReLU6())]
        inputs, reached, dilation = 32, 2, 1
        # expansion, output channels, blocks, stride of the first block
        stages = (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1)
        for expansion, outputs, blocks, stride in (*stages, (6, 160, 3, 2), (6, 320, 1, 1)):
            keeps = reached * stride > output_stride
            later = dilation * stride if keeps else dilation
            stride = 1 if keeps else stride
            for block in range(blocks):
                here = (stride, dilation) if block == 0 else (1, later)
                layers.append(InvertedResidual(inputs, outputs, *here, expansion))
                inputs = outputs
            reached *= stride
            dilation = later
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)


class InvertedResidual(nn.Module):
    """Expand, convolve each channel by itself, and project; add the input where shapes allow."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, dilation: int, expansion: int
    ) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers.append(nn.Sequential(*unit(inputs, hidden, 1), nn.ReLU6()))
        layers.append(nn.Sequential(*unit(hidden, hidden, 3, stride, dilation, hidden), nn.ReLU6()))
        self.conv = nn.Sequential(*layers, *unit(hidden, outputs, 1))
        self.adds = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.adds else self.conv(x)


class Tiny(nn.Module):
    """The small encoder of the digits scenes."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        act = nn.LeakyReLU(slope)
        self.stem = nn.Sequential(*unit(3, 16, 3, 2), act, *unit(16, 32, 3, 2), act)
        self.blocks = nn.Sequential(Residual(1, slope), Residual(2, slope))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.stem(x))


class Residual(nn.Module):
    """Two dilated convolutions of 32 channels, and a shortcut."""

    def __init__(self, dilation: int, slope: float) -> None:
        super().__init__()
        self.act = nn.LeakyReLU(slope)
        first, second = (unit(32, 32, 3, 1, dilation) for _ in range(2))
        self.conv = nn.Sequential(*first, self.act, *second)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.conv(x))
