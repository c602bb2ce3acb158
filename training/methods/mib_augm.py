"""Train by MiB-AugM (arXiv 2405.09858): MiB with a memory whose labels count.

MiB's cross-entropy reads the labels of kept images as background. Here these images have a loss of
their own, in which background may be a new class. Half of each batch are kept images. The paper's
setting is `partitioned`, in which each image serves one step.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from training.config import VOID, MethodConfig
from training.losses import memory_cross_entropy, unbiased_cross_entropy, unbiased_distillation
from training.methods import base
from training.models.segmenter import upsample


class Config(MethodConfig):
    """The weight of the unbiased distillation; `alpha` multiplies the previous model's logits."""

    name: Literal["mib-augm"] = "mib-augm"
    distillation_weight: float = 10.0
    alpha: float = 1.0
    needs_memory: ClassVar[bool] = True
    halves_batches: ClassVar[bool] = True

    @property
    def use_of_background(self) -> str:
        """Return what the losses of both halves do."""
        return "lets background stand for the classes of other steps"


class Method(base.Method):
    """A cross-entropy for each half of the batch, and MiB's distillation on both."""

    config: Config

    def new_classifier(self) -> dict[str, Tensor]:
        """Return MiB's initial classifier."""
        return self.background_shares()

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        """Return the losses, at image resolution."""
        size = batch.masks.shape[-2:]
        logits = upsample(self.outputs(batch.images).logits, size)
        previous = upsample(self.previous_outputs(batch.images).logits, size)
        known = previous.shape[1]
        kept = batch.is_kept[:, None, None]
        own = torch.where(kept, VOID, batch.masks)
        memory = torch.where(kept, batch.masks, VOID)
        distilled = unbiased_distillation(logits, previous, self.config.alpha)
        return {
            "segmentation": 0.5 * unbiased_cross_entropy(logits, own, known, self.mean),
            "memory": 0.5 * memory_cross_entropy(logits, memory, known, self.mean),
            "distillation": self.config.distillation_weight * distilled,
        }
