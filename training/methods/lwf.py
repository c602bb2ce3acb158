"""Train by LwF, learning without forgetting (Li and Hoiem, 2016), as in MiB's Table 1.

The loss is cross-entropy and a distillation of the previous model's softmax.
"""

from typing import Literal

from torch import Tensor

from training.config import MethodConfig
from training.losses import cross_entropy, distillation
from training.methods import base
from training.models.segmenter import upsample


class Config(MethodConfig):
    """The weight of the distillation; `alpha` multiplies the previous model's logits."""

    name: Literal["lwf"] = "lwf"
    distillation_weight: float = 100.0
    alpha: float = 1.0

    @property
    def use_of_background(self) -> str:
        """Return "": where labels name no class, there is no loss of labels."""
        return ""


class Method(base.Method):
    """Cross-entropy and distillation."""

    config: Config

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        """Return both losses, at image resolution."""
        size = batch.masks.shape[-2:]
        logits = upsample(self.outputs(batch.images).logits, size)
        previous = upsample(self.previous_outputs(batch.images).logits, size)
        segmentation = cross_entropy(logits, batch.masks, self.mean)
        kept = distillation(logits, previous, self.config.alpha)
        return {
            "segmentation": segmentation,
            "distillation": self.config.distillation_weight * kept,
        }
