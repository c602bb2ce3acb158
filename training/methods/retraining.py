"""Retrain the last part of a trained model, on labels of all seen classes.

This is a probe, not a method to compare.

The kept part is frozen. The accuracy that the retrained part reaches on the earlier classes shows
how well the kept part still separates them, whatever the old classifier predicted.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from training.config import MethodConfig
from training.losses import cross_entropy
from training.methods import base
from training.models.segmenter import Segmenter, upsample


class Config(MethodConfig):
    """The part that is retrained: the classifier alone, or the decoder (head and classifier)."""

    name: Literal["retraining"] = "retraining"
    part: Literal["classifier", "decoder"] = "classifier"
    needs_previous: ClassVar[bool] = True


class Method(base.Method):
    """Cross-entropy with a frozen first part and a last part that starts from random weights."""

    config: Config

    def set_up(self) -> None:
        """Give the retrained part random weights and freeze the rest."""
        fresh = Segmenter(self.step.model, self.step.task.channels)
        self.model.classifiers.load_state_dict(fresh.classifiers.state_dict())
        self.model.encoder.requires_grad_(False)
        if self.config.part == "decoder":
            self.model.head.load_state_dict(fresh.head.state_dict())
        else:
            self.model.head.requires_grad_(False)

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        """Return the loss of the masks, at image resolution."""
        # Frozen parts run in evaluation mode, because their statistics must not change either.
        with torch.no_grad():
            self.model.encoder.eval()
            features = self.model.encoder(batch.images)
        if self.config.part == "classifier":
            self.model.head.eval()
        logits = base.full_precision(self.model.decode(features).logits)
        logits = upsample(logits, batch.masks.shape[-2:])
        return {"segmentation": cross_entropy(logits, batch.masks, self.mean)}
