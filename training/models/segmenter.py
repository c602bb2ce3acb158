"""The segmentation network: encoder, DeepLabV3 head and one 1x1 classifier per step.

A later step adds a classifier and leaves the others as they are; the logits of all steps are concatenated along channels, so a
channel means the same class for ever, and channel 0 is background. Logits are at the encoder's resolution; who needs them
at the images' upsamples them.
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
    """What the network computes, all at the resolution of the encoder's map."""

    features: Tensor  # [B, encoder channels, h, w]
    head: Tensor  # [B, head channels, h, w], what the classifiers read
    logits: Tensor  # [B, sum of the classifiers' channels, h, w]


class Segmenter(nn.Module):
    """The network of a step whose classifiers have `channels` outputs each, background with the first."""

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
        """Outputs for normalised images [B, 3, H, W] (see `normalise`)."""
        return self.decode(self.encoder(images))

    def decode(self, features: Tensor) -> Outputs:
        """What head and classifiers make of the encoder's features."""
        head = self.head(features)
        return Outputs(
            features, head, torch.cat([classifier(head) for classifier in self.classifiers], dim=1)
        )

    def with_stages(self, images: Tensor) -> tuple[Outputs, tuple[Tensor, ...]]:
        """Outputs, and the maps at the ends of the encoder's stages, before activation."""
        features, stages = self.encoder.stages(images)
        return self.decode(features), stages


def upsample(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear interpolation of [B, C, h, w] to [B, C, *size], corners not aligned."""
    return F.interpolate(logits, list(size), mode="bilinear", align_corners=False)


def normalise(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """RGB bytes uint8 [B, 3, H, W] -> `dtype`, with ImageNet's mean 0 and deviation 1, on the images' device."""
    mean = torch.tensor(IMAGENET_MEAN, dtype=dtype, device=images.device)[:, None, None] * 255
    std = torch.tensor(IMAGENET_STD, dtype=dtype, device=images.device)[:, None, None] * 255
    return (images.to(dtype) - mean) / std
