"""WILSON (Cermelli et al., CVPR 2022): new classes from image labels alone.

A localizer on the encoder's features learns from the image labels where the new classes are (nGWP and focal pooling), with
the previous model as a prior on where the old ones are. Its scores, softened by alpha, and the previous model's outputs
are the pseudo-supervision that the segmentation model is trained on. As the published code does it, the localizer and the
encoder learn alone for the first epochs, all maps stay at the encoder's stride, and the localizer makes targets in
evaluation mode but learns in training mode.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from training.config import MethodConfig, StepConfig
from training.losses import (
    Mean,
    classification_loss,
    divide,
    encoder_distillation,
    localization_prior_loss,
    ngwp_focal_pooling,
    segmentation_loss,
    self_supervision_loss,
)
from training.methods import base
from training.models.localizer import Localizer
from training.models.segmenter import Segmenter
from training.pseudo import keep_labelled, pamr, pseudo_masks, pseudo_supervision


class Config(MethodConfig):
    """The paper's settings for VOC; it uses alpha 0.9 and 30 epochs for COCO-to-VOC."""

    name: Literal["wilson"] = "wilson"
    alpha: float = Field(default=0.5, ge=0, le=1)  # 1: hard pseudo-supervision, 0: the localizer's soft scores
    warmup_epochs: float = Field(default=5, ge=0)  # localizer and encoder alone, at constant learning rate
    localizer_lr: float = Field(default=0.01, ge=0)
    localizer_channels: int = Field(default=256, ge=1)
    affinity: bool = True  # refine the localizer's own targets with PAMR
    # Target of background: the smaller of the previous model's and the localizer's, or with b (1 - b) previous + b localizer.
    background_mix: float | None = Field(default=None, ge=0, le=1, json_schema_extra={"legacy": None})
    prior: Literal["bce", "softmax_ce", "constant", "fixed", "none"] = Field("bce", json_schema_extra={"legacy": "bce"})
    prior_weight: float = 1.0
    encoder_distillation: float = 1.0
    self_supervision: float = 1.0
    supervision: ClassVar[Literal["pixel", "image"]] = "image"
    least_new_classes: ClassVar[int] = 2


class Method(base.Method):
    config: Config

    def __init__(self, step: StepConfig, previous: Segmenter | None = None, mean: Mean = divide) -> None:
        super().__init__(step, previous, mean)
        features, width, classes = self.model.encoder.channels, self.config.localizer_channels, sum(step.task.channels)
        self.localizer = Localizer(features, width, classes, step.model.activation)

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        before = self.previous_outputs(batch.images)
        now = self.outputs(batch.images)
        scores = base.full_precision(self.localizer(now.features))
        unlabelled = before.logits.shape[1] if self.step.task.labels == "new" else 1  # channels without image labels
        losses = {
            "classification": classification_loss(ngwp_focal_pooling(scores), batch.image_labels, unlabelled),
            "prior": self.config.prior_weight * localization_prior_loss(scores, before.logits),
            "encoder": self.config.encoder_distillation * encoder_distillation(now.features, before.features),
        }
        if progress.epoch < self.config.warmup_epochs:
            # Zero, but it reaches the head: SGD decays only what has a gradient, and the published warm-up decays it.
            return losses | {"segmentation": 0 * now.logits.sum()}
        target_scores = self.target_scores(now.features)
        confidence = keep_labelled(target_scores.softmax(1), batch.image_labels)
        masks = pseudo_masks(pamr(batch.pixels, confidence) if self.config.affinity else confidence)
        target, image_weight = pseudo_supervision(
            target_scores, before.logits, batch.image_labels, self.config.alpha, self.config.background_mix
        )
        return losses | {
            "self_supervision": self.config.self_supervision * self_supervision_loss(scores, masks, batch.image_labels),
            "segmentation": segmentation_loss(now.logits, target, image_weight, self.mean),
        }

    @torch.no_grad()
    def target_scores(self, features: Tensor) -> Tensor:
        """The localizer's scores in evaluation mode: what targets are made from."""
        self.localizer.eval()
        scores = base.full_precision(self.localizer(features))
        self.localizer.train()
        return scores

    def parameter_groups(self) -> list[dict]:
        localizer = {"name": "localizer", "params": list(self.localizer.parameters()), "initial_lr": self.config.localizer_lr}
        return [*super().parameter_groups(), localizer]

    def learning_rate_factor(self, progress: base.Progress) -> float:
        """Constant during warm-up, then the poly schedule at the absolute iteration: a jump, as published."""
        return 1.0 if progress.epoch < self.config.warmup_epochs else super().learning_rate_factor(progress)

    def carried(self) -> dict[str, Tensor]:
        """The localizer, for pictures of what it saw; it plays no part in inference."""
        return {f"localizer.{name}": value for name, value in self.localizer.state_dict().items()}
