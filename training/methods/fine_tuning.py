"""Train by fine-tuning: minimise the loss of the step's labels alone.

Nothing counters forgetting, so this is the lower bound. It is also how step 0 of every chain is
trained.
"""

from collections.abc import Callable, Iterable
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from training.binary_method import BinaryMethodConfig
from training.config import BACKGROUND, VOID
from training.importance import Importance, PathIntegral, RiemannianWalk
from training.losses import Mean, binary_cross_entropy, cross_entropy
from training.methods import base
from training.models.segmenter import upsample


class Config(BinaryMethodConfig):
    """The loss: cross-entropy, or one binary cross-entropy per class as in WILSON's step 0."""

    name: Literal["fine-tuning"] = "fine-tuning"
    loss: Literal["cross_entropy", "bce"] = "cross_entropy"
    # Background pixels give no loss. Forgetting that remains is then not caused by the background
    # shift.
    ignore_background: bool = Field(default=False, json_schema_extra={"legacy": False})
    # What the mean over pixels counts: labelled pixels, or all, as in the papers' code. They differ
    # only where void is ignored.
    mean_over: Literal["labelled", "all"] = Field(
        default="labelled", json_schema_extra={"legacy": "labelled"}
    )
    # Publish the importance of each weight, which EWC, PI and RW need of step 0. The weights are
    # the same.
    importance: bool = Field(default=False, json_schema_extra={"legacy": False})
    # Channels for classes of later steps. They learn as every channel does, and no pixel has them;
    # DFT's later steps start from them.
    reserved_channels: int = Field(default=0, ge=0, json_schema_extra={"legacy": 0})
    needs_previous: ClassVar[bool] = False

    @property
    def current_recipe(self) -> int:
        """Return 2 for binary cross-entropy, which is computed without one-hot masks since then."""
        return 2 if self.is_binary else 1

    @property
    def is_binary(self) -> bool:
        """Return whether the loss is a binary cross-entropy."""
        return self.loss == "bce"

    @property
    def records_importance(self) -> bool:
        """Return whether the step publishes the importance of each weight."""
        return self.importance

    @property
    def channels_for_later(self) -> int:
        """Return how many channels the step trains for classes that later steps bring."""
        return self.reserved_channels

    @property
    def use_of_background(self) -> str:
        """Return what ignoring background needs, "" for the plain loss."""
        return "ignores the pixels of background" if self.ignore_background else ""


class Method(base.Method):
    """The loss of the step's labels; with `importance`, the recorders of EWC, PI and RW."""

    config: Config

    def set_up(self) -> None:
        """Register the recorders of importance, and the channels of later classes."""
        recorders = (PathIntegral, RiemannianWalk) if self.config.importance else ()
        self.importance = Importance(self.model, self.inherited, *recorders)
        self.reserved = None
        if self.config.reserved_channels:
            width = self.step.model.head_channels
            self.reserved = nn.Conv2d(width, self.config.reserved_channels, 1)

    def prepare(self, batches: Callable[[], Iterable[base.Batch]]) -> None:
        """Store the initial weights in the recorders."""
        self.importance.begin(self.model)

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        """Return the loss of the masks, at image resolution."""
        now = self.outputs(batch.images)
        logits = now.logits
        if self.reserved is not None:
            logits = torch.cat([logits, base.full_precision(self.reserved(now.head))], 1)
        logits = upsample(logits, batch.masks.shape[-2:])
        loss = cross_entropy if self.config.loss == "cross_entropy" else binary_cross_entropy
        masks = batch.masks
        if self.config.ignore_background:
            masks = torch.where(masks == BACKGROUND, VOID, masks)
        return {"segmentation": loss(logits, masks, self.mean_of(masks))}

    def mean_of(self, masks: Tensor) -> Mean:
        """Return the mean over the labelled pixels, or over all pixels, of the global batch.

        Args:
            masks: int64 [B, H, W].
        """
        if self.config.mean_over == "labelled":
            return self.mean
        # All workers have as many.
        pixels = masks.numel()
        return lambda total, weight, epsilon=0.0: total / pixels

    def before_update(self, progress: base.Progress) -> None:
        """Record the gradients of this iteration."""
        if self.config.importance:
            self.importance.record(self.model, progress.iteration)

    def parameter_groups(self) -> list[dict]:
        """Return the model's groups; the channels of later classes learn as the head does."""
        encoder, head = super().parameter_groups()
        if self.reserved is not None:
            head["params"] += self.reserved.parameters()
        return [encoder, head]

    def carried(self) -> dict[str, Tensor]:
        """Return the recorded importance, and the channels of later classes."""
        carried = self.importance.carried(self.model)
        if self.reserved is not None:
            carried |= {f"reserved.{name}": v for name, v in self.reserved.state_dict().items()}
        return carried
