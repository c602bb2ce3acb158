"""Train by DFT*, Decoder Fine-Tuning (arXiv 2508.04267): only the newest classifier learns.

Step 0 is `fine-tuning` with a channel for each class of all later steps (`reserved_channels`). They
stand in its softmax and no pixel has them. A later step takes its classifier from them and freezes
all the rest, in evaluation mode, so that nothing learned before can be forgotten. What can still go
wrong is that new classes score higher than old ones.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.config import MethodConfig
from training.losses import cross_entropy
from training.methods import base
from training.models.segmenter import upsample


class Config(MethodConfig):
    """It has no settings; the paper's learning rate is 0.0005 (`optimization.head_lr`)."""

    name: Literal["dft"] = "dft"
    needs_reserved: ClassVar[bool] = True


class Method(base.Method):
    """Cross-entropy to the step's masks, over the channels of all steps, later ones included."""

    config: Config

    def set_up(self) -> None:
        """Register the channels of later steps: they stand in the softmax and do not learn."""
        taken = len(self.step.task.new_classes)
        # The parent step publishes them, so a checkpoint need not hold them.
        self.later_weight = nn.Buffer(self.inherited["reserved.weight"][taken:], persistent=False)
        self.later_bias = nn.Buffer(self.inherited["reserved.bias"][taken:], persistent=False)

    def new_classifier(self) -> dict[str, Tensor]:
        """Return the first reserved channels, as the new classes' classifier."""
        taken = len(self.step.task.new_classes)
        newest = f"classifiers.{len(self.step.task.groups) - 1}"
        return {
            f"{newest}.{name}": self.inherited[f"reserved.{name}"][:taken]
            for name in ("weight", "bias")
        }

    def frozen(self) -> list[nn.Module]:
        """Return all modules but the newest classifier."""
        return self.all_but_newest()

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        """Return the loss of the masks, at image resolution."""
        now = self.outputs(batch.images)
        logits = now.logits
        if len(self.later_bias):
            later = F.conv2d(now.head, self.later_weight, self.later_bias)
            logits = torch.cat([logits, base.full_precision(later)], 1)
        logits = upsample(logits, batch.masks.shape[-2:])
        return {"segmentation": cross_entropy(logits, batch.masks, self.mean)}

    def carried(self) -> dict[str, Tensor]:
        """Return the channels of later steps, if there are any left."""
        if not len(self.later_bias):
            return {}
        return {"reserved.weight": self.later_weight, "reserved.bias": self.later_bias}
