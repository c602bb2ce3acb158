"""Train by LwF-MC (Rebuffi et al., 2017), as in MiB's Table 1: iCaRL's losses without its memory.

The loss is one binary cross-entropy per class and a distillation of the previous model's sigmoid.
Step 0 is `fine-tuning` with loss `bce`.
"""

from typing import Literal

from torch import Tensor

from training.binary_method import BinaryMethodConfig
from training.losses import binary_cross_entropy, binary_distillation
from training.methods import base
from training.models.segmenter import upsample


class Config(BinaryMethodConfig):
    """The weight of the distillation, which is summed over the previous channels."""

    name: Literal["lwf-mc"] = "lwf-mc"
    distillation_weight: float = 10.0

    @property
    def current_recipe(self) -> int:
        """Return 2: binary cross-entropy is computed without one-hot masks since then."""
        return 2

    @property
    def use_of_background(self) -> str:
        """Return "": where labels name no class, there is no loss of labels."""
        return ""


class Method(base.Method):
    """Binary cross-entropy and binary distillation."""

    config: Config

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        """Return both losses, at image resolution."""
        size = batch.masks.shape[-2:]
        logits = upsample(self.outputs(batch.images).logits, size)
        previous = upsample(self.previous_outputs(batch.images).logits, size)
        segmentation = binary_cross_entropy(logits, batch.masks, self.mean)
        kept = binary_distillation(logits, previous)
        return {
            "segmentation": segmentation,
            "distillation": self.config.distillation_weight * kept,
        }
