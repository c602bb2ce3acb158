"""Joint training: all classes at once, from all images and masks. What the incremental methods are measured against.

It is no increment: a chain of it has a single step, trained as step 0 is (`base.optimization`).
"""

from typing import ClassVar, Literal

from torch import Tensor

from training.config import MethodConfig
from training.losses import binary_cross_entropy, cross_entropy
from training.methods import base
from training.models.segmenter import upsample


class Config(MethodConfig):
    """Cross-entropy, or one binary cross-entropy per class."""

    name: Literal["joint"] = "joint"
    loss: Literal["cross_entropy", "bce"] = "cross_entropy"
    needs_previous: ClassVar[bool] = False
    all_at_once: ClassVar[bool] = True


class Method(base.Method):
    config: Config

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        logits = upsample(self.outputs(batch.images).logits, batch.masks.shape[-2:])
        loss = cross_entropy if self.config.loss == "cross_entropy" else binary_cross_entropy
        return {"segmentation": loss(logits, batch.masks, self.mean)}
