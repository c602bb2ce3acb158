"""Train by iCaRL's loss without its memory, which MiB's code calls iCaRL, disjoint.

It is the fully supervised counterpart of WILSON's segmentation loss: one binary cross-entropy per
channel. The target is the mask for new classes and sigmoid(previous logits) for previous ones. With
WILSON's encoder distillation, nothing but the localizer is missing. Step 0 is `fine-tuning` with
loss `bce`.
"""

from typing import Literal

from pydantic import Field
from torch import Tensor

from training.binary_method import BinaryMethodConfig
from training.losses import encoder_distillation, joint_binary_cross_entropy
from training.methods import base
from training.models.segmenter import upsample


class Config(BinaryMethodConfig):
    """The target of background: the mask's, the previous model's, or the smaller of both."""

    name: Literal["icarl"] = "icarl"
    background: Literal["smaller", "previous", "mask"] = "smaller"
    # The weight of the mean squared difference of the encoders' features; WILSON has 1.
    encoder_distillation: float = Field(default=0.0, ge=0, json_schema_extra={"legacy": 0.0})

    @property
    def use_of_background(self) -> str:
        """Return what the target of background needs; the previous model's does without."""
        return (
            ""
            if self.background == "previous"
            else "reads background off the masks, which method.background previous does not"
        )


class Method(base.Method):
    """Binary cross-entropy to masks and to the previous model."""

    config: Config

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        """Return the joint loss of masks and previous model, at image resolution.

        Where the encoder's distillation has a weight, return that loss, too.
        """
        size = batch.masks.shape[-2:]
        now = self.outputs(batch.images)
        before = self.previous_outputs(batch.images)
        logits = upsample(now.logits, size)
        previous = upsample(before.logits, size)
        loss = joint_binary_cross_entropy(logits, batch.masks, previous, self.config.background)
        if not self.config.encoder_distillation:
            return {"segmentation": loss}
        kept = encoder_distillation(now.features, before.features)
        return {"segmentation": loss, "encoder": self.config.encoder_distillation * kept}
