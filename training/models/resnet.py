"""Define the encoders ResNet-50 and ResNet-101 (He et al., 2016), by torchvision's names.

The classifier is left out, and the last stages have dilation instead of stride. At output stride 16
the fourth stage keeps the resolution of the third. In torchvision the convolution whose stride is
dropped keeps its dilation, and those after it double theirs. At every second position the dense map
then equals what the strided network computes, so pretrained weights keep their meaning. In the code
of WILSON, MiB and PLOP that convolution has the doubled dilation, too.
"""

from typing import Literal

from torch import Tensor, nn

from training.models.norm import Activation, BatchNorm, Layers, activation, convolve

# The blocks of a dilated stage that have its dilation: those after the first, or all.
DilatedBlocks = Literal["later", "all"]


class Bottleneck(nn.Module):
    """Compute y = a(branch(x) + shortcut(x)), with a the activation.

    The branch convolves by 1x1, 3x3 (stride, dilation) and 1x1 to four times the width, each
    followed by a norm. The shortcut is x, or a 1x1 convolution with a norm where the shapes differ.
    """

    expansion = 4

    def __init__(
        self, inputs: int, width: int, stride: int, dilation: int, act: Activation, frozen: bool
    ) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = BatchNorm(width, frozen)
        self.conv2 = nn.Conv2d(
            width, width, 3, stride, padding=dilation, dilation=dilation, bias=False
        )
        self.bn2 = BatchNorm(width, frozen)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = BatchNorm(outputs, frozen)
        self.act = activation(act)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = Layers(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), BatchNorm(outputs, frozen)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, inputs, h, w] to [B, 4 * width, h / stride, w / stride]."""
        return self.act(self.total(x))

    def total(self, x: Tensor) -> Tensor:
        """Return the sum of branch and shortcut, before the last activation."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.act(convolve(self.conv1, self.bn1, x))
        x = self.act(convolve(self.conv2, self.bn2, x))
        return convolve(self.conv3, self.bn3, x) + shortcut


class ResNet(nn.Module):
    """Map images [B, 3, H, W] to features [B, 2048, H / output_stride, W / output_stride]."""

    channels = 512 * Bottleneck.expansion
    unused = ("fc.",)

    def __init__(
        self,
        blocks: tuple[int, int, int, int],
        output_stride: int,
        act: Activation = "relu",
        frozen: bool = False,
        dilated: DilatedBlocks = "later",
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = BatchNorm(64, frozen)
        self.act = activation(act)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = 64
        reached = 4
        dilation = 1
        stages = []
        for count, width, stride in zip(blocks, (64, 128, 256, 512), (1, 2, 2, 2), strict=True):
            stride, following = (
                (stride, dilation) if reached * stride <= output_stride else (1, dilation * stride)
            )
            first = following if dilated == "all" else dilation
            stage = [Bottleneck(inputs, width, stride, first, act, frozen)]
            inputs = width * Bottleneck.expansion
            stage += [
                Bottleneck(inputs, width, 1, following, act, frozen) for _ in range(count - 1)
            ]
            stages.append(nn.Sequential(*stage))
            reached *= stride
            dilation = following
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def parts(self) -> dict[str, nn.Module]:
        """Return the encoder as parts that follow each other."""
        stem = Layers(self.conv1, self.bn1, self.act, self.maxpool)
        return {
            "stem": stem,
            "stage 1": self.layer1,
            "stage 2": self.layer2,
            "stage 3": self.layer3,
            "stage 4": self.layer4,
        }

    def forward(self, images: Tensor) -> Tensor:
        """Return the features of normalised images."""
        return self.layer4(self.layer3(self.layer2(self.layer1(self.stem(images)))))

    def stem(self, images: Tensor) -> Tensor:
        """Return what the first stage reads, [B, 64, H / 4, W / 4]."""
        return self.maxpool(self.act(convolve(self.conv1, self.bn1, images)))

    def stages(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the features, and each stage's sum that its last block activates."""
        totals = []
        x = self.stem(images)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            *earlier, last = stage
            x = nn.Sequential(*earlier)(x)
            assert isinstance(last, Bottleneck)
            totals.append(last.total(x))
            # The activation works in place.
            x = last.act(totals[-1].clone())
        return x, tuple(totals)


def resnet50(
    output_stride: int,
    act: Activation = "relu",
    frozen: bool = False,
    dilated: DilatedBlocks = "later",
) -> ResNet:
    """Return ResNet-50 (23.5 M parameters) at output stride 8, 16 or 32."""
    return ResNet((3, 4, 6, 3), output_stride, act, frozen, dilated)


def resnet101(
    output_stride: int,
    act: Activation = "relu",
    frozen: bool = False,
    dilated: DilatedBlocks = "later",
) -> ResNet:
    """Return ResNet-101 (42.5 M parameters) at output stride 8, 16 or 32."""
    return ResNet((3, 4, 23, 3), output_stride, act, frozen, dilated)
