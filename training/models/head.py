"""The DeepLabV3 head of the papers: convolutions at four dilations, and a pooled branch that is added to them.

It differs from the textbook's head: the pooled branch is added, not concatenated; in training it pools the whole map, at
evaluation a window of the training map's size slides over it, so that larger images are seen as in training.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.norm import LEAKY_SLOPE, Activation, BatchNorm, activation, convolve

DILATIONS = {
    4: (6, 12, 18),
    8: (12, 24, 32),
    16: (6, 12, 18),
}  # by output stride; 32, not 36, as the papers' code has it


class Head(nn.Module):
    """[B, inputs, h, w] -> [B, channels, h, w].

    `eval_pooling`: side of the pooled branch's window at evaluation, in cells; None pools the whole map.
    """

    def __init__(
        self,
        inputs: int,
        channels: int,
        output_stride: int,
        eval_pooling: int | None,
        act: Activation,
    ) -> None:
        super().__init__()
        branches = [nn.Conv2d(inputs, channels, 1, bias=False)]
        branches += [
            nn.Conv2d(inputs, channels, 3, padding=d, dilation=d, bias=False)
            for d in DILATIONS[output_stride]
        ]
        self.branches = nn.ModuleList(branches)
        self.branches_norm = BatchNorm(len(branches) * channels)
        self.reduce = nn.Conv2d(len(branches) * channels, channels, 1, bias=False)
        self.pooled_reduce = nn.Conv2d(inputs, channels, 1, bias=False)
        self.pooled_norm = BatchNorm(channels)
        self.pooled_expand = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = BatchNorm(channels)
        self.act = activation(act)
        self.eval_pooling = eval_pooling
        gain = nn.init.calculate_gain(act, LEAKY_SLOPE)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_normal_(module.weight, gain)

    def forward(self, features: Tensor) -> Tensor:
        """What the classifiers read."""
        x = torch.cat([_sparse(branch, features) for branch in self.branches], dim=1)
        x = self.reduce(self.act(self.branches_norm(x)))
        return self.act(self.norm(x + self._pooled(features)))

    def _pooled(self, features: Tensor) -> Tensor:
        height, width = features.shape[-2:]
        side = (
            max(height, width) if self.training or self.eval_pooling is None else self.eval_pooling
        )
        window = min(side, height), min(side, width)
        pooled = (
            features.mean((2, 3), keepdim=True)
            if window == (height, width)
            else F.avg_pool2d(features, window, stride=1)
        )
        pooled = self.pooled_expand(
            self.act(convolve(self.pooled_reduce, self.pooled_norm, pooled))
        )
        # Repeating the border after the pointwise layers equals repeating it before them, on fewer channels.
        (left, right), (top, bottom) = _margins(window[1]), _margins(window[0])
        return (
            pooled
            if pooled.shape[-2:] == (1, 1)
            else F.pad(pooled, (left, right, top, bottom), mode="replicate")
        )


def _sparse(convolution: nn.Module, x: Tensor) -> Tensor:
    """The convolution; when its dilation leaves the map, by its centre alone: all else would meet padding."""
    assert isinstance(convolution, nn.Conv2d)
    if convolution.kernel_size == (1, 1) or convolution.dilation[0] < max(x.shape[-2:]):
        return convolution(x)
    return F.conv2d(x, convolution.weight[:, :, 1:2, 1:2])


def _margins(window: int) -> tuple[int, int]:
    """Cells that a sliding window cuts before and after; the odd one of an even window is cut after."""
    return (window - 1) // 2, window // 2
