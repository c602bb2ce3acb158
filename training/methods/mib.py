"""Train by MiB, Modeling the Background (Cermelli et al., CVPR 2020).

The meaning of background changes from step to step: a background pixel may be of a previous class,
and a new class was background before. Unbiased losses account for both. Each of the three parts can
be switched off, which gives the paper's ablation.
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
    """The authors' settings; `alpha` multiplies the previous model's logits.

    The authors use distillation weight 100 for the scenario 15-1.
    """

    name: Literal["mib"] = "mib"
    distillation_weight: float = 10.0
    alpha: float = 1.0
    unbiased_cross_entropy: bool = True
    unbiased_distillation: bool = True
    background_initialisation: bool = True


class Method(base.Method):
    """Unbiased cross-entropy and distillation; the new classifier starts from background."""

    config: Config

    def new_classifier(self) -> dict[str, Tensor]:
        """Return the background's shares, or the default without `background_initialisation`."""
        if self.config.background_initialisation:
            return self.background_shares()
        return super().new_classifier()

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        """Return both losses, at image resolution."""
        size = batch.masks.shape[-2:]
        logits = upsample(self.outputs(batch.images).logits, size)
        previous = upsample(self.previous_outputs(batch.images).logits, size)
        if self.config.unbiased_cross_entropy:
            segmentation = unbiased_cross_entropy(logits, batch.masks, previous.shape[1], self.mean)
        else:
            segmentation = cross_entropy(logits, batch.masks, self.mean)
        distil = unbiased_distillation if self.config.unbiased_distillation else distillation
        kept = distil(logits, previous, self.config.alpha)
        return {
            "segmentation": segmentation,
            "distillation": self.config.distillation_weight * kept,
        }
