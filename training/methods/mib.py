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
    unbiased_losses,
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

    @property
    def current_recipe(self) -> int:
        """Return 2 with both unbiased losses, which one function computes since then."""
        return 2 if self.unbiased_cross_entropy and self.unbiased_distillation else 1

    @property
    def blind_to_old_labels(self) -> str:
        """Return why labels of previous classes teach it nothing, or "" without that loss."""
        if not self.unbiased_cross_entropy:
            return ""
        return (
            "its unbiased cross-entropy reads every previous class as background: take mib-augm, "
            "which learns from a memory, set method.unbiased_cross_entropy to false"
        )

    @property
    def use_of_background(self) -> str:
        """Return what both unbiased losses do."""
        return "lets background stand for the classes of other steps"


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
        segmentation, kept = self.losses(logits, previous, batch.masks)
        return {
            "segmentation": segmentation,
            "distillation": self.config.distillation_weight * kept,
        }

    def losses(
        self, logits: Tensor, previous_logits: Tensor, masks: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy and the distillation that the document asks for.

        Args:
            logits: [B, C, H, W].
            previous_logits: [B, C_old, H, W].
            masks: int64 [B, H, W].
        """
        alpha = self.config.alpha
        if self.config.unbiased_cross_entropy and self.config.unbiased_distillation:
            return unbiased_losses(logits, masks, previous_logits, alpha, self.mean)
        distil = unbiased_distillation if self.config.unbiased_distillation else distillation
        kept = distil(logits, previous_logits, alpha)
        if self.config.unbiased_cross_entropy:
            return unbiased_cross_entropy(logits, masks, previous_logits.shape[1], self.mean), kept
        return cross_entropy(logits, masks, self.mean), kept
