"""The fully supervised twin of WILSON's segmentation loss: masks say where new classes are, the previous model where old ones.

One binary cross-entropy per channel, whose target is the mask for new classes and sigmoid(previous logits) for previous
ones. MiB's code calls it iCaRL, disjoint; it has no memory. Step 0 learns by `fine-tuning` with loss bce.
"""

from typing import Literal

from torch import Tensor

from training.config import MethodConfig
from training.losses import joint_binary_cross_entropy
from training.methods import base
from training.models.segmenter import upsample


class Config(MethodConfig):
    """Target of background: the smaller of the mask's and the previous model's, as WILSON has it, or one of them."""

    name: Literal["icarl"] = "icarl"
    background: Literal["smaller", "previous", "mask"] = "smaller"


class Method(base.Method):
    config: Config

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        size = batch.masks.shape[-2:]
        logits = upsample(self.outputs(batch.images).logits, size)
        previous = upsample(self.previous_outputs(batch.images).logits, size)
        return {
            "segmentation": joint_binary_cross_entropy(
                logits, batch.masks, previous, self.config.background
            )
        }
