"""Modeling the Background (Cermelli et al., CVPR 2020): what is background now may be an old class, or was background before.

Its three parts can be switched off one by one, which is the paper's own ablation.
"""

from typing import Literal

from torch import Tensor

from training.config import MethodConfig
from training.losses import (
    cross_entropy,
    distillation,
    unbiased_cross_entropy,
    unbiased_distillation,
)
from training.methods import base
from training.models.segmenter import upsample


class Config(MethodConfig):
    """Distillation weight 10, but 100 for 15-1 (the authors' own setting); alpha multiplies the previous model's logits."""

    name: Literal["mib"] = "mib"
    distillation_weight: float = 10.0
    alpha: float = 1.0
    unbiased_cross_entropy: bool = True
    unbiased_distillation: bool = True
    background_initialisation: bool = True


class Method(base.Method):
    config: Config

    def new_classifier(self) -> dict[str, Tensor]:
        return (
            self.background_shares()
            if self.config.background_initialisation
            else super().new_classifier()
        )

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        size = batch.masks.shape[-2:]
        logits = upsample(self.outputs(batch.images).logits, size)
        previous = upsample(self.previous_outputs(batch.images).logits, size)
        distil = unbiased_distillation if self.config.unbiased_distillation else distillation
        if self.config.unbiased_cross_entropy:
            segmentation = unbiased_cross_entropy(logits, batch.masks, previous.shape[1], self.mean)
        else:
            segmentation = cross_entropy(logits, batch.masks, self.mean)
        return {
            "segmentation": segmentation,
            "distillation": self.config.distillation_weight
            * distil(logits, previous, self.config.alpha),
        }
