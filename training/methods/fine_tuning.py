"""Fine-tuning: the step's labels alone. It is also how step 0 is trained, and joint training with all classes in one group."""

from typing import ClassVar, Literal

from torch import Tensor

from training.config import MethodConfig
from training.losses import binary_cross_entropy, cross_entropy
from training.methods import base
from training.models.segmenter import upsample


class Config(MethodConfig):
    """Cross-entropy, or one binary cross-entropy per class, which is how WILSON trains step 0."""

    name: Literal["fine-tuning"] = "fine-tuning"
    loss: Literal["cross_entropy", "bce"] = "cross_entropy"
    needs_previous: ClassVar[bool] = False


class Method(base.Method):
    config: Config

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        logits = upsample(self.outputs(batch.images).logits, batch.masks.shape[-2:])
        loss = cross_entropy if self.config.loss == "cross_entropy" else binary_cross_entropy
        return {"segmentation": loss(logits, batch.masks, self.mean)}
