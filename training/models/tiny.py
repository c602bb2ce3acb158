"""The encoder of the digits scenes: small enough to train in seconds on one CPU thread.

Two strided convolutions and two residual blocks; dilation widens what one cell sees to 55 pixels, more than a digit.
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
    """The encoder: [B, 3, H, W] -> [B, 32, H / 4, W / 4]."""

    channels = 32
    unused = ()

    def __init__(self, act: Activation = "relu", frozen: bool = False) -> None:
        super().__init__()
        half, quarter = _unit(3, 16, 2, 1, frozen), _unit(16, self.channels, 2, 1, frozen)
        self.stem = Layers(*half, activation(act), *quarter, activation(act))
        self.blocks = nn.Sequential(
            *(_Residual(self.channels, dilation, act, frozen) for dilation in (1, 2))
        )

    def parts(self) -> dict[str, nn.Module]:
        """The encoder as parts that follow each other."""
        return {"stem": self.stem, "stage 1": self.blocks[0], "stage 2": self.blocks[1]}

    def forward(self, images: Tensor) -> Tensor:
        """Features of normalised images."""
        return self.blocks(self.stem(images))

    def stages(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Features, and of each of the two residual blocks the sum that it activates."""
        x, totals = self.stem(images), []
        for block in self.blocks:
            assert isinstance(block, _Residual)
            totals.append(block.total(x))
            x = block.act(totals[-1].clone())  # it works in place
        return x, tuple(totals)


def tiny(act: Activation = "relu", frozen: bool = False) -> Tiny:
    """The digits encoder, at output stride 4."""
    return Tiny(act, frozen)
