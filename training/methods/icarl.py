"""Train by iCaRL's loss without its memory, which MiB's code calls iCaRL, disjoint.

It is the fully supervised counterpart of WILSON's segmentation loss: one binary cross-entropy per
channel. The target is the mask for new classes and sigmoid(previous logits) for previous ones. Step
0 is `fine-tuning` with loss `bce`.
"""

from typing import Literal

from torch import Tensor

from training.config import MethodConfig
from training.losses import joint_binary_cross_entropy
from training.methods import base
from training.models.segmenter import upsample


class Config(MethodConfig):
    """The target of background: the mask's, the previous model's, or the smaller of both."""

    name: Literal["icarl"] = "icarl"
    background: Literal["smaller", "previous", "mask"] = "smaller"


class Method(base.Method):
    """Binary cross-entropy to masks and to the previous model."""

    config: Config

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        """Return the joint loss of masks and previous model, at image resolution."""
        size = batch.masks.shape[-2:]
        logits = upsample(self.outputs(batch.images).logits, size)
        previous = upsample(self.previous_outputs(batch.images).logits, size)
        loss = joint_binary_cross_entropy(logits, batch.masks, previous, self.config.background)
        return {"segmentation": loss}
