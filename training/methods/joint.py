"""Train all classes at once from all images and masks: the upper bound of the incremental methods.

A chain of it has a single step, with the settings of step 0 (`base.optimization`).
"""

from typing import ClassVar, Literal

from torch import Tensor

from training.config import MethodConfig
from training.losses import binary_cross_entropy, cross_entropy
from training.methods import base
from training.models.segmenter import upsample


class Config(MethodConfig):
    """The loss: cross-entropy, or one binary cross-entropy per class."""

    name: Literal["joint"] = "joint"
    loss: Literal["cross_entropy", "bce"] = "cross_entropy"
    needs_previous: ClassVar[bool] = False
    all_at_once: ClassVar[bool] = True


class Method(base.Method):
    """The loss of the masks of all classes."""

    config: Config

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        """Return the loss of the masks, at image resolution."""
        logits = upsample(self.outputs(batch.images).logits, batch.masks.shape[-2:])
        loss = cross_entropy if self.config.loss == "cross_entropy" else binary_cross_entropy
        return {"segmentation": loss(logits, batch.masks, self.mean)}
