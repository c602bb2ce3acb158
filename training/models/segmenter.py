"""Define the segmentation network: encoder, DeepLabV3 head and one 1x1 classifier per step.

A later step adds a classifier and leaves the others as they are. The logits of all steps are
concatenated along channels, so a channel always means the same class, and channel 0 is background.
Logits are at the encoder's resolution; `upsample` brings them to the images'.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.config import ModelConfig
from training.models.backbones import build_encoder
from training.models.head import Head

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB, of values in 0..1
IMAGENET_STD = (0.229, 0.224, 0.225)


class Outputs(NamedTuple):
    """The network's outputs, all at the resolution of the encoder's map."""

    features: Tensor  # [B, encoder channels, h, w]
    head: Tensor  # [B, head channels, h, w], what the classifiers read
    logits: Tensor  # [B, sum of the classifiers' channels, h, w]


class Segmenter(nn.Module):
    """Compute logits = concat of W_t head(encoder(images)) + b_t over the steps t.

    Args:
        config: Encoder and head.
        channels: Output channels of each step's classifier; background is the first's channel 0.
    """

    def __init__(self, config: ModelConfig, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder = build_encoder(config)
        width = config.head_channels
        self.head = Head(
            self.encoder.channels,
            width,
            config.output_stride,
            config.eval_pooling,
            config.activation,
        )
        self.classifiers = nn.ModuleList(nn.Conv2d(width, count, 1) for count in channels)

    def forward(self, images: Tensor) -> Outputs:
        """Return the outputs for images [B, 3, H, W], normalised by `normalise`."""
        return self.decode(self.encoder(images))

    def decode(self, features: Tensor) -> Outputs:
        """Return the outputs of head and classifiers for the encoder's features, [B, C, h, w]."""
        head = self.head(features)
        logits = [classifier(head) for classifier in self.classifiers]
        return Outputs(features, head, torch.cat(logits, dim=1))

    def with_stages(self, images: Tensor) -> tuple[Outputs, tuple[Tensor, ...]]:
        """Return the outputs, and the maps at the ends of the encoder stages before activation."""
        features, stages = self.encoder.stages(images)
        return self.decode(features), stages


def upsample(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolate [B, C, h, w] bilinearly to [B, C, *size], without aligned corners."""
    return F.interpolate(logits, list(size), mode="bilinear", align_corners=False)


def normalise(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return (images - mean) / deviation of ImageNet, on the images' device.

    Args:
        images: RGB, uint8 [B, 3, H, W].
        dtype: Of the result.
    """
    mean = torch.tensor(IMAGENET_MEAN, dtype=dtype, device=images.device)[:, None, None] * 255
    std = torch.tensor(IMAGENET_STD, dtype=dtype, device=images.device)[:, None, None] * 255
    return (images.to(dtype) - mean) / std
