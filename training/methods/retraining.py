"""Retrain the last part of a trained model, on labels of all seen classes.

This is a probe, not a method to compare. It is trained by the kind of loss that trained the model:
a softmax over all channels, or a sigmoid for each.

The kept part is frozen. The accuracy that the retrained part reaches on the earlier classes shows
how well the kept part still separates them, whatever the old classifier predicted.
"""

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from training.config import MethodConfig
from training.losses import binary_cross_entropy, cross_entropy
from training.methods import base
from training.models.segmenter import Segmenter, upsample


class Config(MethodConfig):
    """The part that is retrained: the classifier alone, or the decoder (head and classifier)."""

    name: Literal["retraining"] = "retraining"
    part: Literal["classifier", "decoder"] = "classifier"
    loss: Literal["cross_entropy", "bce"] = Field(
        default="cross_entropy", json_schema_extra={"legacy": "cross_entropy"}
    )
    # With bce, the probability that each class starts at; None leaves the bias random.
    initial_probability: float | None = Field(
        default=None, gt=0, lt=1, json_schema_extra={"legacy": None}
    )
    needs_previous: ClassVar[bool] = True
    classifier: ClassVar[Literal["pointwise", "ssul"] | None] = None

    @property
    def use_of_background(self) -> str:
        """Return "": where labels name no class, there is no loss of labels."""
        return ""


class Method(base.Method):
    """The loss of the masks; the first part is frozen, the last starts from random weights."""

    config: Config

    def set_up(self) -> None:
        """Give the retrained part random weights and freeze the rest."""
        fresh = Segmenter(self.step.model, self.step.task.channels)
        kept = ("encoder.", "head.")
        last = {n: value for n, value in fresh.state_dict().items() if not n.startswith(kept)}
        self.model.load_state_dict(last, strict=False)
        if self.config.initial_probability is not None:
            start = math.log(
                self.config.initial_probability / (1 - self.config.initial_probability)
            )
            for layer in self.model.last_layers:
                nn.init.constant_(layer.get_parameter("bias"), start)
            nn.init.constant_(self.model.last_layers[0].get_parameter("bias")[:1], -start)
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
        # No pixel is unknown, which SSUL's classifiers have as a last channel.
        logits = base.full_precision(self.model.scores(self.model.head(features)))
        logits = upsample(logits, batch.masks.shape[-2:])
        loss = cross_entropy if self.config.loss == "cross_entropy" else binary_cross_entropy
        return {"segmentation": loss(logits, batch.masks, self.mean)}
