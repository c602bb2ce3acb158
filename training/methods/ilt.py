"""ILT (Michieli and Zanuttigh, 2019): LwF that keeps the encoder's features as well."""

from typing import Literal

from torch import Tensor

from training.config import MethodConfig
from training.losses import cross_entropy, distillation, encoder_distillation
from training.methods import base
from training.models.segmenter import upsample


class Config(MethodConfig):
    """Weights of both distillations, as in MiB's Table 1."""

    name: Literal["ilt"] = "ilt"
    distillation_weight: float = 100.0
    encoder_distillation: float = 100.0


class Method(base.Method):
    config: Config

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        size = batch.masks.shape[-2:]
        now, before = self.outputs(batch.images), self.previous_outputs(batch.images)
        logits, previous = upsample(now.logits, size), upsample(before.logits, size)
        return {
            "segmentation": cross_entropy(logits, batch.masks, self.mean),
            "distillation": self.config.distillation_weight * distillation(logits, previous),
            "encoder": self.config.encoder_distillation
            * encoder_distillation(now.features, before.features),
        }
