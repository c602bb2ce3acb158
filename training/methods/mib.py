"""Modeling the Background (Cermelli et al., CVPR 2020): what is background now may be an old class, or was background before.

Its three parts can be switched off one by one, which is the paper's own ablation.
"""

from typing import Literal

from torch import Tensor

from training.config import MethodConfig
from training.losses import (
    cross_entropy,
    distillation,
    initialise_from_background,
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
        """The new classes start as equal shares of the background (Eq. 10): its weights, its bias less log(new classes + 1)."""
        if not self.config.background_initialisation:
            return super().new_classifier()
        newest = f"classifiers.{len(self.step.task.groups) - 1}"
        before = self.previous.state_dict()
        weight, bias = before["classifiers.0.weight"], before["classifiers.0.bias"].clone()
        new_weight, new_bias, bias[:1] = initialise_from_background(weight[0], bias[:1], len(self.step.task.new_classes))
        return {f"{newest}.weight": new_weight, f"{newest}.bias": new_bias, "classifiers.0.bias": bias}

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
            "distillation": self.config.distillation_weight * distil(logits, previous, self.config.alpha),
        }
