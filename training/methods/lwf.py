"""LwF: cross-entropy, and the previous model's outputs kept by distillation. The baseline of MiB's Table 1."""

from typing import Literal

from torch import Tensor

from training.config import MethodConfig
from training.losses import cross_entropy, distillation
from training.methods import base
from training.models.segmenter import upsample


class Config(MethodConfig):
    """Weight of the distillation, and the factor (inverse temperature) on the previous model's logits."""

    name: Literal["lwf"] = "lwf"
    distillation_weight: float = 100.0
    alpha: float = 1.0


class Method(base.Method):
    config: Config

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        size = batch.masks.shape[-2:]
        logits = upsample(self.outputs(batch.images).logits, size)
        previous = upsample(self.previous_outputs(batch.images).logits, size)
        return {
            "segmentation": cross_entropy(logits, batch.masks, self.mean),
            "distillation": self.config.distillation_weight
            * distillation(logits, previous, self.config.alpha),
        }
