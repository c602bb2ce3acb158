"""Define the segmentation network: encoder, head and one classifier per step.

The head is DeepLabV3's, or linear. A later step adds a classifier and leaves the others as they
are. The logits of all steps are concatenated along channels, so a channel always means the same
class, and channel 0 is background. Logits are at the encoder's resolution; `upsample` brings them
to the images'. A classifier is a 1x1 convolution, or SSUL's (`training.models.step_classifiers`).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.backbone import IMAGENET_MEAN, IMAGENET_STD
from training.config import InputError, ModelConfig
from training.models.backbones import build_encoder
from training.models.head import Head, LinearHead
from training.models.step_classifiers import StepClassifier, join_unknown


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
        self.head = _build_head(config, self.encoder.channels)
        self.kind = config.classifier
        if config.classifier == "ssul":
            first, *later = channels
            act = config.activation
            counts = (first - 1, *later)
            self.classifiers = nn.ModuleList(StepClassifier(width, n, act) for n in counts)
            self.background = StepClassifier(width, 1, act)
            self.unknown = StepClassifier(width, 1, act)
        else:
            self.classifiers = nn.ModuleList(nn.Conv2d(width, count, 1) for count in channels)

    def forward(self, images: Tensor) -> Outputs:
        """Return the outputs for images [B, 3, H, W], normalised by `normalise`."""
        return self.decode(self.encoder(images))

    def decode(self, features: Tensor) -> Outputs:
        """Return the outputs of head and classifiers for the encoder's features, [B, C, h, w]."""
        head = self.head(features)
        return Outputs(features, head, self.classify(head))

    def classify(self, head: Tensor) -> Tensor:
        """Return the logits for the head's output, [B, width, h, w]."""
        logits = self.scores(head)
        return join_unknown(logits) if self.kind == "ssul" else logits

    def scores(self, head: Tensor) -> Tensor:
        """Return the logits that `classify` starts from.

        SSUL's have unknown as their last channel.
        """
        classifiers = [*self.classifiers]
        if self.kind == "ssul":
            classifiers = [self.background, *classifiers, self.unknown]
        return torch.cat([classifier(head) for classifier in classifiers], dim=1)

    @property
    def last_layers(self) -> list[nn.Conv2d]:
        """Return the 1x1 convolutions that end in the channels of background and the classes."""
        if self.kind == "ssul":
            heads = [self.background, *self.classifiers]
            return [each.scores for each in heads if isinstance(each, StepClassifier)]
        return [each for each in self.classifiers if isinstance(each, nn.Conv2d)]

    def with_stages(self, images: Tensor) -> tuple[Outputs, tuple[Tensor, ...]]:
        """Return the outputs, and the maps at the ends of the encoder stages before activation."""
        features, stages = self.encoder.stages(images)
        return self.decode(features), stages


def _build_head(config: ModelConfig, inputs: int) -> Head | LinearHead:
    """Return the head for features of so many channels."""
    if config.head != "linear":
        return Head(
            inputs,
            config.head_channels,
            config.output_stride,
            config.eval_pooling,
            config.activation,
            config.head,
        )
    if config.head_channels != inputs:
        raise InputError(
            f"a linear head passes on the encoder's {inputs} channels: set model.head_channels to "
            f"{inputs}"
        )
    return LinearHead(inputs)


def upsample(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolate [B, C, h, w] bilinearly to [B, C, *size], without aligned corners."""
    return F.interpolate(logits, list(size), mode="bilinear", align_corners=False)


def normaliser(
    device: torch.device, dtype: torch.dtype = torch.float32
) -> Callable[[Tensor], Tensor]:
    """Return a function that maps images to (images - mean) / deviation of ImageNet.

    It takes RGB images, uint8 [B, 3, H, W], on `device`. Their mean and deviation are copied there
    once, here.
    """
    mean = torch.tensor(IMAGENET_MEAN, dtype=dtype, device=device)[:, None, None] * 255
    std = torch.tensor(IMAGENET_STD, dtype=dtype, device=device)[:, None, None] * 255
    return lambda images: (images.to(dtype) - mean) / std


def normalise(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return (images - mean) / deviation of ImageNet, on the images' device.

    Args:
        images: RGB, uint8 [B, 3, H, W].
        dtype: Of the result.
    """
    return normaliser(images.device, dtype)(images)
