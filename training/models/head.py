"""Define the papers' DeepLabV3 head: convolutions at four dilations, plus a pooled branch.

It differs from the head of DeepLabV3 (Chen et al., 2017) in two ways. The pooled branch is added,
not concatenated. In training it pools the whole map. At evaluation a window of the training map's
size slides over the map, so the head sees larger images as it saw images in training.

The head of torchvision's DeepLabV3 is this one with other dilations and a 3x3 convolution behind
it: adding W_expand p is what concatenating p before the last 1x1 convolution computes. Its dropout
is left out, so it computes the same at evaluation.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.norm import (
    LEAKY_SLOPE,
    Activation,
    BatchNorm,
    Layers,
    activation,
    convolve,
)

HeadKind = Literal["papers", "torchvision"]
# By output stride. 32, not 36, as the papers' code has it. Strides 14 and 32 are no paper's.
DILATIONS = {
    4: (6, 12, 18),
    8: (12, 24, 32),
    14: (6, 12, 18),
    16: (6, 12, 18),
    32: (3, 6, 9),
}
TORCHVISION_DILATIONS = DILATIONS | {8: (12, 24, 36)}


class Head(nn.Module):
    """Map features [B, inputs, h, w] to what the classifiers read, [B, channels, h, w].

    With BN a batch norm, a the activation and W 1x1 convolutions without bias,

        x = a(BN(concat of a 1x1 and three dilated 3x3 convolutions))    [B, 4 * channels, h, w]
        p = W_expand a(BN(W_pool pool(features)))                        [B, channels, h, w]
        output = a(BN(W_reduce x + p))

    torchvision's applies a(BN(3x3 convolution)) to that once more.

    Args:
        inputs: Channels of the features.
        channels: Channels of each branch and of the output.
        output_stride: Decides the dilations.
        eval_pooling: Side of the pooling window at evaluation, in cells; None pools the whole map.
        act: The activation.
        kind: Whose head it is.
    """

    def __init__(
        self,
        inputs: int,
        channels: int,
        output_stride: int,
        eval_pooling: int | None,
        act: Activation,
        kind: HeadKind = "papers",
    ) -> None:
        super().__init__()
        dilations = DILATIONS if kind == "papers" else TORCHVISION_DILATIONS
        branches = [nn.Conv2d(inputs, channels, 1, bias=False)]
        branches += [
            nn.Conv2d(inputs, channels, 3, padding=d, dilation=d, bias=False)
            for d in dilations[output_stride]
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
        self.refine = None
        # Building a layer draws random numbers: what the papers' head lacks must not be built.
        if kind == "torchvision":
            self.refine = Layers(
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                BatchNorm(channels),
                activation(act),
            )
        gain = nn.init.calculate_gain(act, LEAKY_SLOPE)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_normal_(module.weight, gain)

    def forward(self, features: Tensor) -> Tensor:
        """Return what the classifiers read, [B, channels, h, w]."""
        x = torch.cat([_sparse(branch, features) for branch in self.branches], dim=1)
        x = self.reduce(self.act(self.branches_norm(x)))
        x = self.act(self.norm(x + self._pooled(features)))
        return x if self.refine is None else self.refine(x)

    def _pooled(self, features: Tensor) -> Tensor:
        """Return the pooled branch: [B, channels, 1, 1] or, by windows, [B, channels, h, w]."""
        height, width = features.shape[-2:]
        side = max(height, width)
        if self.eval_pooling is not None and not self.training:
            side = self.eval_pooling
        window = min(side, height), min(side, width)
        if window == (height, width):
            # Permuted, so that the gradient is channels_last as the branches' gradients are. It is
            # added first, and the sum has its layout.
            pooled = features.permute(0, 2, 3, 1).mean((1, 2))[:, :, None, None]
        else:
            pooled = F.avg_pool2d(features, window, stride=1)
        pooled = self.act(convolve(self.pooled_reduce, self.pooled_norm, pooled))
        pooled = self.pooled_expand(pooled)
        if pooled.shape[-2:] == (1, 1):
            return pooled
        # Repeating the border after the pointwise layers equals repeating it before them, and
        # takes fewer channels.
        top, bottom = _margins(window[0])
        left, right = _margins(window[1])
        return F.pad(pooled, (left, right, top, bottom), mode="replicate")


class LinearHead(nn.Module):
    """Normalise each channel of the features over the batch: the classifiers read nothing else.

    With the classifiers it is the linear head by which encoders without labels are compared
    (Oquab et al., 2024): a batch norm and a 1x1 convolution.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = BatchNorm(channels)

    def forward(self, features: Tensor) -> Tensor:
        """Return the features [B, channels, h, w], normalised."""
        return self.norm(features)


def _sparse(convolution: nn.Module, x: Tensor) -> Tensor:
    """Convolve; use the kernel's centre alone where all else meets padding."""
    assert isinstance(convolution, nn.Conv2d)
    if convolution.kernel_size == (1, 1) or convolution.dilation[0] < max(x.shape[-2:]):
        return convolution(x)
    return F.conv2d(x, convolution.weight[:, :, 1:2, 1:2])


def _margins(window: int) -> tuple[int, int]:
    """Return how many cells a sliding window cuts before and after; an even one cuts more after."""
    return (window - 1) // 2, window // 2
