"""Train by WILSON (Cermelli et al., CVPR 2022): learn new classes from image labels alone.

A localizer on the encoder's features learns from the image labels where the new classes are, by
nGWP and focal pooling. The previous model gives it a prior on where the previous classes are. The
localizer's scores, hardened by alpha, and the previous model's outputs form the pseudo-supervision
of the segmentation model.

Three details follow the published code. For the first epochs, the warm-up, the localizer and the
encoder learn without the segmentation model. All maps stay at the encoder's stride. The localizer
computes targets in evaluation mode, before it learns in training mode. The paper's ablations are
fields of `Config`.

Step 0 may be trained so, too, where there is no previous model. The localizer's background is then
1 everywhere or learned without a prior, as `prior` says, nothing is distilled, and the localizer's
scores alone are the pseudo-supervision, background's included.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from training.binary_method import BinaryMethodConfig
from training.class_similarity import Pairs, similarity_matrix
from training.config import InputError
from training.image_label_losses import (
    attention_pooling,
    classification_loss,
    ngwp_focal_pooling,
    segmentation_loss,
    self_supervision_loss,
    semantic_prior_loss,
)
from training.losses import distillation, encoder_distillation, localization_prior_loss
from training.methods import base
from training.models.localizer import Localizer
from training.pamr import DILATIONS, pamr
from training.pseudo_labels import keep_labelled, pseudo_masks, pseudo_supervision


class Config(BinaryMethodConfig):
    """The paper's settings for VOC; for COCO-to-VOC it uses alpha 0.9 and 30 epochs."""

    name: Literal["wilson"] = "wilson"
    # 1 gives hard pseudo-supervision, 0 the localizer's soft scores.
    alpha: float = Field(default=0.5, ge=0, le=1)
    # Localizer and encoder alone, at a constant learning rate.
    warmup_epochs: float = Field(default=5, ge=0)
    localizer_lr: float = Field(default=0.01, ge=0)
    localizer_channels: int = Field(default=256, ge=1)
    # Refine the localizer's own targets with PAMR.
    affinity: bool = True
    # The target of background is the smaller of the previous model's and the localizer's. With a
    # number b it is (1 - b) previous + b localizer.
    background_mix: float | None = Field(
        default=None, ge=0, le=1, json_schema_extra={"legacy": None}
    )
    # The target of a new class is multiplied by 1 - the previous model's highest probability of a
    # previous class, so that a localizer that claims too much does not overwrite these.
    yield_to_previous: bool = Field(default=False, json_schema_extra={"legacy": False})
    # The odds of a new class's target are multiplied by this. Above 1 makes up for a localizer that
    # spreads a class so thinly that background wins at each of its pixels.
    new_class_odds: float = Field(default=1.0, gt=0, json_schema_extra={"legacy": 1.0})
    # How the localizer's previous channels are found. They learn from the previous model by binary
    # cross-entropy (bce, the paper's) or by softmax cross-entropy, or learn without a prior (none).
    # Or they do not learn: they are the previous model's logits (fixed), or 1 (constant).
    prior: Literal["bce", "softmax_ce", "constant", "fixed", "none"] = Field(
        default="bce", json_schema_extra={"legacy": "bce"}
    )
    prior_weight: float = 1.0
    # From the localizer's map to a score of the image. "gap" is global average pooling; "ngwp"
    # lacks the focal penalty on small masks.
    pooling: Literal["ngwp_focal", "ngwp", "attention", "gap"] = Field(
        default="ngwp_focal", json_schema_extra={"legacy": "ngwp_focal"}
    )
    affinity_iterations: int = Field(default=10, ge=1, json_schema_extra={"legacy": 10})
    affinity_dilations: tuple[PositiveInt, ...] = Field(
        default=DILATIONS, min_length=1, json_schema_extra=dict[str, Any](legacy=DILATIONS)
    )
    # The weight of RaSP's loss, and its table (`training.class_similarity`).
    semantic_prior: float = Field(default=0.0, ge=0, json_schema_extra={"legacy": 0.0})
    similarity: Pairs = Field(default=(), json_schema_extra=dict[str, Any](legacy=()))
    encoder_distillation: float = 1.0
    self_supervision: float = 1.0
    supervision: ClassVar[Literal["pixel", "image"]] = "image"
    least_new_classes: ClassVar[int] = 2

    @property
    def unused_fields(self) -> Mapping[str, str]:
        """Return the fields of a prior that is not learned, and of what is switched off."""
        learned = self.prior in ("bce", "softmax_ce")
        unused = {} if learned else {"prior_weight": f"prior is {self.prior!r}, which has no loss"}
        if not self.affinity:
            fields = ("affinity_iterations", "affinity_dilations")
            unused |= dict.fromkeys(fields, "affinity is False")
        return unused if self.semantic_prior else unused | {"similarity": "semantic_prior is 0"}

    def check_first_step(self) -> None:
        """Raise InputError unless every field fits a step without a previous model."""
        fitting = {
            "prior": self.prior in ("constant", "none"),
            "encoder_distillation": self.encoder_distillation == 0,
            "semantic_prior": self.semantic_prior == 0,
            "background_mix": self.background_mix is None,
            "yield_to_previous": not self.yield_to_previous,
            "new_class_odds": self.new_class_odds == 1,
        }
        wrong = [f"base.method.{name}" for name, fits in fitting.items() if not fits]
        if wrong:
            raise InputError(
                f"step 0 has no previous model, which {' and '.join(wrong)} would need: set prior "
                "to constant (background scores 1 everywhere, as in Araslanov and Roth) or none, "
                "encoder_distillation and semantic_prior to 0, and leave background_mix, "
                "yield_to_previous and new_class_odds out"
            )

    @property
    def current_recipe(self) -> int:
        """Return 2: the localizer makes its targets before its training pass since then."""
        return 2

    @model_validator(mode="after")
    def _similarity_given(self) -> Self:
        if self.semantic_prior and not self.similarity:
            raise InputError(
                "the semantic prior needs to know how similar the classes are: give "
                "method.similarity, such as ((3, 8, 2.0),) for bird and cat of VOC (class id, "
                "class id, similarity relative to background), or set method.semantic_prior to 0"
            )
        return self

    @property
    def use_of_background(self) -> str:
        """Return what the localizer does."""
        return "finds its classes against a background"


class Method(base.Method):
    """The losses of the localizer, of the encoder and of the pseudo-supervision."""

    config: Config
    similarity: Tensor  # [new classes, previous classes + 1]

    def set_up(self) -> None:
        """Register the localizer and the table of similarities."""
        self.localizer = Localizer(
            self.model.encoder.channels,
            self.config.localizer_channels,
            sum(self.step.task.channels),
            self.step.model.activation,
        )
        task = self.step.task
        table = similarity_matrix(self.config.similarity, task.new_classes, task.previous_classes)
        self.register_buffer("similarity", table, persistent=False)

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        """Return the losses, all at the encoder's stride.

        During warm-up there is no self-supervision, and the segmentation loss is 0.
        """
        before = None if self.is_first else self.previous_outputs(batch.images)
        features = self.model.encoder(batch.images)
        previous = base.no_logits(features) if before is None else before.logits
        warming_up = progress.epoch < self.config.warmup_epochs
        if warming_up:
            scores = target_scores = self.scores(features, previous)
        else:
            scores, target_scores = self.scores_with_targets(features, previous)
        losses = self.localizer_losses(scores, previous, batch.image_labels)
        if before is not None:
            encoder = encoder_distillation(features, before.features)
            losses["encoder"] = self.config.encoder_distillation * encoder
        if self.config.semantic_prior:
            semantic = semantic_prior_loss(scores, previous, batch.image_labels, self.similarity)
            losses["semantic_prior"] = self.config.semantic_prior * semantic
        if warming_up:
            return losses | {"segmentation": self.resting_loss(features)}
        masks = self.confident_masks(target_scores, batch)
        self_supervision = self_supervision_loss(scores, masks, batch.image_labels)
        target, image_weight = pseudo_supervision(
            target_scores,
            previous,
            batch.image_labels,
            self.config.alpha,
            self.config.background_mix,
            self.config.yield_to_previous,
            self.config.new_class_odds,
        )
        logits = base.full_precision(self.model.decode(features).logits)
        return losses | {
            "self_supervision": self.config.self_supervision * self_supervision,
            "segmentation": segmentation_loss(logits, target, image_weight, self.mean),
        }

    def resting_loss(self, features: Tensor) -> Tensor:
        """Return 0, with a gradient of 0 for head and classifiers.

        The published loop multiplies the logits by 0. The statistics of the head's norms then
        move, and SGD, which decays only parameters with a gradient, decays the head. Here both
        happen without a backward pass through the head.

        Args:
            features: [B, D, h, w].
        """
        with torch.no_grad():
            self.model.head(features)
        resting = [*self.model.head.parameters(), *self.model.classifiers.parameters()]
        return 0 * torch.stack([parameter.sum() for parameter in resting]).sum()

    def localizer_losses(
        self, scores: Tensor, previous_logits: Tensor, image_labels: Tensor
    ) -> dict[str, Tensor]:
        """Return the classification loss, and the loss of a prior that is learned.

        Args:
            scores: [B, C, h, w], in training mode; they carry the gradient, also into the encoder.
            previous_logits: [B, C_old, h, w].
            image_labels: [B, C - 1].
        """
        # Channels without image labels: all previous ones, or background alone.
        unlabelled = max(previous_logits.shape[1], 1) if self.step.task.labels == "new" else 1
        pooled = self.image_scores(scores)
        losses = {"classification": classification_loss(pooled, image_labels, unlabelled)}
        if self.config.prior in ("bce", "softmax_ce"):
            loss = localization_prior_loss if self.config.prior == "bce" else distillation
            losses["prior"] = self.config.prior_weight * loss(scores, previous_logits)
        return losses

    def scores(self, features: Tensor, previous_logits: Tensor) -> Tensor:
        """Return the localizer's scores, [B, C, h, w].

        With prior fixed or constant, the previous channels are given and carry no gradient.
        """
        return self.with_given_channels(self.localizer(features), previous_logits)

    def scores_with_targets(
        self, features: Tensor, previous_logits: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return `scores`, and those of evaluation mode, from which targets are computed."""
        scores, targets = self.localizer.with_targets(features)
        given = self.with_given_channels
        return given(scores, previous_logits), given(targets, previous_logits)

    def with_given_channels(self, scores: Tensor, previous_logits: Tensor) -> Tensor:
        """Return scores in full precision, with the previous channels of a prior that is given."""
        scores = base.full_precision(scores)
        if self.config.prior == "fixed":
            given = previous_logits
        elif self.config.prior == "constant":
            # In step 0 background is all that is not learned from image labels.
            given = torch.ones_like(scores[:, : max(previous_logits.shape[1], 1)])
        else:
            return scores
        return torch.cat([given, scores[:, given.shape[1] :]], 1)

    def image_scores(self, scores: Tensor) -> Tensor:
        """Return one score for each image and channel, pooled from its map: [B, C]."""
        match self.config.pooling:
            case "attention":
                return attention_pooling(scores)
            case "gap":
                return scores.mean((2, 3))
            case kind:
                return ngwp_focal_pooling(scores, focal=kind == "ngwp_focal")

    def confident_masks(self, target_scores: Tensor, batch: base.Batch) -> Tensor:
        """Return the localizer's own targets, one-hot [B, C, h, w], without gradient."""
        confidence = keep_labelled(target_scores.softmax(1), batch.image_labels)
        if self.config.affinity:
            how = (self.config.affinity_iterations, self.config.affinity_dilations)
            confidence = pamr(batch.pixels, confidence, *how)
        return pseudo_masks(confidence)

    def parameter_groups(self) -> list[dict]:
        """Return the model's groups and one for the localizer."""
        localizer = {
            "name": "localizer",
            "params": list(self.localizer.parameters()),
            "initial_lr": self.config.localizer_lr,
        }
        return [*super().parameter_groups(), localizer]

    def learning_rate_factor(self, progress: base.Progress, group: str) -> float:
        """Return 1 during warm-up, then the poly schedule at the absolute iteration.

        The learning rate jumps at the end of the warm-up, as in the published code.
        """
        if progress.epoch < self.config.warmup_epochs:
            return 1.0
        return super().learning_rate_factor(progress, group)

    def carried(self) -> dict[str, Tensor]:
        """Return the localizer, from which figures are drawn; inference does not use it."""
        return {f"localizer.{name}": value for name, value in self.localizer.state_dict().items()}
