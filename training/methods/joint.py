"""Train all classes at once from all images and masks: the upper bound of the incremental methods.

A chain of it has a single step, with the settings of step 0 (`base.optimization`).
"""

from typing import ClassVar, Literal

from torch import Tensor

from training.binary_method import BinaryMethodConfig
from training.losses import binary_cross_entropy, cross_entropy
from training.methods import base
from training.models.segmenter import upsample


class Config(BinaryMethodConfig):
    """The loss: cross-entropy, or one binary cross-entropy per class."""

    name: Literal["joint"] = "joint"
    loss: Literal["cross_entropy", "bce"] = "cross_entropy"
    needs_previous: ClassVar[bool] = False
    all_at_once: ClassVar[bool] = True

    @property
    def current_recipe(self) -> int:
        """Return 2 for binary cross-entropy, which is computed without one-hot masks since then."""
        return 2 if self.is_binary else 1

    @property
    def is_binary(self) -> bool:
        """Return whether the loss is a binary cross-entropy."""
        return self.loss == "bce"

    @property
    def use_of_background(self) -> str:
        """Return "": where labels name no class, there is no loss of labels."""
        return ""


class Method(base.Method):
    """The loss of the masks of all classes."""

    config: Config

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        """Return the loss of the masks, at image resolution."""
        logits = upsample(self.outputs(batch.images).logits, batch.masks.shape[-2:])
        loss = cross_entropy if self.config.loss == "cross_entropy" else binary_cross_entropy
        return {"segmentation": loss(logits, batch.masks, self.mean)}
