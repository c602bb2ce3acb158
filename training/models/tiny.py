"""Define the encoder of the digits scenes, small enough to train in seconds on one CPU thread.

It has two strided convolutions and two residual blocks. By dilation one cell sees 55 pixels, which
is more than a digit.
"""

from torch import Tensor, nn

from training.models.norm import Activation, BatchNorm, Layers, activation


def _unit(
    inputs: int, outputs: int, stride: int, dilation: int, frozen: bool
) -> tuple[nn.Conv2d, BatchNorm]:
    convolution = nn.Conv2d(
        inputs, outputs, 3, stride, padding=dilation, dilation=dilation, bias=False
    )
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution, BatchNorm(outputs, frozen)


class _Residual(nn.Module):
    """Compute y = a(x + branch(x)); the branch is two dilated 3x3 convolutions with norms."""

    def __init__(self, channels: int, dilation: int, act: Activation, frozen: bool) -> None:
        super().__init__()
        first, second = (_unit(channels, channels, 1, dilation, frozen) for _ in range(2))
        self.conv = Layers(*first, activation(act), *second)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.total(x))

    def total(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


class Tiny(nn.Module):
    """Map images [B, 3, H, W] to features [B, 32, H / 4, W / 4]."""

    channels = 32
    unused = ()

    def __init__(self, act: Activation = "relu", frozen: bool = False) -> None:
        super().__init__()
        half = _unit(3, 16, 2, 1, frozen)
        quarter = _unit(16, self.channels, 2, 1, frozen)
        self.stem = Layers(*half, activation(act), *quarter, activation(act))
        self.blocks = nn.Sequential(
            *(_Residual(self.channels, dilation, act, frozen) for dilation in (1, 2))
        )

    def parts(self) -> dict[str, nn.Module]:
        """Return the encoder as parts that follow each other."""
        return {"stem": self.stem, "stage 1": self.blocks[0], "stage 2": self.blocks[1]}

    def forward(self, images: Tensor) -> Tensor:
        """Return the features of normalised images."""
        return self.blocks(self.stem(images))

    def stages(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the features, and each residual block's sum that it activates."""
        totals = []
        x = self.stem(images)
        for block in self.blocks:
            assert isinstance(block, _Residual)
            totals.append(block.total(x))
            # The activation works in place.
            x = block.act(totals[-1].clone())
        return x, tuple(totals)


def tiny(act: Activation = "relu", frozen: bool = False) -> Tiny:
    """Return the digits encoder, at output stride 4."""
    return Tiny(act, frozen)
