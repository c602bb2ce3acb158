"""Train by fine-tuning: minimise the loss of the step's labels alone.

Nothing counters forgetting, so this is the lower bound. It is also how step 0 of every chain is
trained.
"""

from collections.abc import Callable, Iterable
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from training.config import BACKGROUND, VOID, MethodConfig
from training.importance import Importance, PathIntegral, RiemannianWalk
from training.losses import binary_cross_entropy, cross_entropy
from training.methods import base
from training.models.segmenter import upsample


class Config(MethodConfig):
    """The loss: cross-entropy, or one binary cross-entropy per class as in WILSON's step 0."""

    name: Literal["fine-tuning"] = "fine-tuning"
    loss: Literal["cross_entropy", "bce"] = "cross_entropy"
    # Background pixels give no loss. Forgetting that remains is then not caused by the background
    # shift.
    ignore_background: bool = Field(default=False, json_schema_extra={"legacy": False})
    # Publish the importance of each weight, which EWC, PI and RW need of step 0. The weights are
    # the same.
    importance: bool = Field(default=False, json_schema_extra={"legacy": False})
    needs_previous: ClassVar[bool] = False

    @property
    def records_importance(self) -> bool:
        """Return whether the step publishes the importance of each weight."""
        return self.importance


class Method(base.Method):
    """The loss of the step's labels; with `importance`, the recorders of EWC, PI and RW."""

    config: Config

    def set_up(self) -> None:
        """Register the recorders of importance."""
        recorders = (PathIntegral, RiemannianWalk) if self.config.importance else ()
        self.importance = Importance(self.model, self.inherited, *recorders)

    def prepare(self, batches: Callable[[], Iterable[base.Batch]]) -> None:
        """Store the initial weights in the recorders."""
        self.importance.begin(self.model)

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        """Return the loss of the masks, at image resolution."""
        logits = upsample(self.outputs(batch.images).logits, batch.masks.shape[-2:])
        loss = cross_entropy if self.config.loss == "cross_entropy" else binary_cross_entropy
        masks = batch.masks
        if self.config.ignore_background:
            masks = torch.where(masks == BACKGROUND, VOID, masks)
        return {"segmentation": loss(logits, masks, self.mean)}

    def before_update(self, progress: base.Progress) -> None:
        """Record the gradients of this iteration."""
        if self.config.importance:
            self.importance.record(self.model, progress.iteration)

    def carried(self) -> dict[str, Tensor]:
        """Return the recorded importance."""
        return self.importance.carried(self.model)
