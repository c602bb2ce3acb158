"""LwF-MC: one-against-all classifiers, and the previous model's sigmoid outputs kept by distillation.

After iCaRL (Rebuffi et al., 2017) without its memory, as MiB's Table 1 has it. Step 0 learns by `fine-tuning` with loss bce.
"""

from typing import Literal

from torch import Tensor

from training.config import MethodConfig
from training.losses import binary_cross_entropy, binary_distillation
from training.methods import base
from training.models.segmenter import upsample


class Config(MethodConfig):
    """Weight of the distillation, which is summed over the previous channels like the loss of the labels."""

    name: Literal["lwf-mc"] = "lwf-mc"
    distillation_weight: float = 10.0


class Method(base.Method):
    config: Config

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        size = batch.masks.shape[-2:]
        logits = upsample(self.outputs(batch.images).logits, size)
        previous = upsample(self.previous_outputs(batch.images).logits, size)
        return {
            "segmentation": binary_cross_entropy(logits, batch.masks, self.mean),
            "distillation": self.config.distillation_weight * binary_distillation(logits, previous),
        }
