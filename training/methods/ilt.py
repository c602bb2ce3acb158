"""Train by ILT (Michieli and Zanuttigh, 2019): LwF and a distillation of the features."""

from typing import Literal

from torch import Tensor

from training.config import MethodConfig
from training.losses import cross_entropy, distillation, encoder_distillation
from training.methods import base
from training.models.segmenter import upsample


class Config(MethodConfig):
    """The weights of both distillations, as in MiB's Table 1."""

    name: Literal["ilt"] = "ilt"
    distillation_weight: float = 100.0
    encoder_distillation: float = 100.0

    @property
    def use_of_background(self) -> str:
        """Return "": where labels name no class, there is no loss of labels."""
        return ""


class Method(base.Method):
    """Cross-entropy, distillation of the logits and of the encoder's features."""

    config: Config

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        """Return the three losses; those of the logits are at image resolution."""
        size = batch.masks.shape[-2:]
        now = self.outputs(batch.images)
        before = self.previous_outputs(batch.images)
        logits = upsample(now.logits, size)
        previous = upsample(before.logits, size)
        segmentation = cross_entropy(logits, batch.masks, self.mean)
        kept = distillation(logits, previous)
        features = encoder_distillation(now.features, before.features)
        return {
            "segmentation": segmentation,
            "distillation": self.config.distillation_weight * kept,
            "encoder": self.config.encoder_distillation * features,
        }
