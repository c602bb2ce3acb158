"""WILSON (Cermelli et al., CVPR 2022): new classes from image labels alone.

A localizer on the encoder's features learns from the image labels where the new classes are (nGWP and focal pooling), with
the previous model as a prior on where the old ones are. Its scores, softened by alpha, and the previous model's outputs
are the pseudo-supervision that the segmentation model is trained on. As the published code does it, the localizer and the
encoder learn alone for the first epochs, all maps stay at the encoder's stride, and the localizer makes targets in
evaluation mode but learns in training mode.

The paper's ablations are fields of `Config`. `prior` says where the localizer's previous channels come from: learned by
imitating the previous model ("bce" is the paper's, "softmax_ce" lets the channels compete), learned without it ("none"),
or not learned at all: the previous model's logits ("fixed"), or 1 everywhere ("constant").
"""

from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from training.class_similarity import Pairs, similarity_matrix
from training.config import InputError, MethodConfig, StepConfig
from training.losses import (
    Mean,
    attention_pooling,
    classification_loss,
    distillation,
    divide,
    encoder_distillation,
    localization_prior_loss,
    ngwp_focal_pooling,
    segmentation_loss,
    self_supervision_loss,
    semantic_prior_loss,
)
from training.methods import base
from training.models.localizer import Localizer
from training.models.segmenter import Segmenter
from training.pseudo_labels import DILATIONS, keep_labelled, pamr, pseudo_masks, pseudo_supervision


class Config(MethodConfig):
    """The paper's settings for VOC; it uses alpha 0.9 and 30 epochs for COCO-to-VOC."""

    name: Literal["wilson"] = "wilson"
    alpha: float = Field(
        default=0.5, ge=0, le=1
    )  # 1: hard pseudo-supervision, 0: the localizer's soft scores
    warmup_epochs: float = Field(
        default=5, ge=0
    )  # localizer and encoder alone, at constant learning rate
    localizer_lr: float = Field(default=0.01, ge=0)
    localizer_channels: int = Field(default=256, ge=1)
    affinity: bool = True  # refine the localizer's own targets with PAMR
    # Target of background: the smaller of the previous model's and the localizer's, or with b (1 - b) previous + b localizer.
    background_mix: float | None = Field(
        default=None, ge=0, le=1, json_schema_extra={"legacy": None}
    )
    prior: Literal["bce", "softmax_ce", "constant", "fixed", "none"] = Field(
        default="bce", json_schema_extra={"legacy": "bce"}
    )
    prior_weight: float = 1.0
    # From the localizer's map to a score of the image; "gap" is a plain mean, "ngwp" lacks the penalty on small masks.
    pooling: Literal["ngwp_focal", "ngwp", "attention", "gap"] = Field(
        default="ngwp_focal", json_schema_extra={"legacy": "ngwp_focal"}
    )
    affinity_iterations: int = Field(default=10, ge=1, json_schema_extra={"legacy": 10})
    affinity_dilations: tuple[PositiveInt, ...] = Field(
        default=DILATIONS, min_length=1, json_schema_extra=dict[str, Any](legacy=DILATIONS)
    )
    # RaSP's loss and its table: (class, class, how many times more alike they are than a class and background).
    semantic_prior: float = Field(default=0.0, ge=0, json_schema_extra={"legacy": 0.0})
    similarity: Pairs = Field(default=(), json_schema_extra=dict[str, Any](legacy=()))
    encoder_distillation: float = 1.0
    self_supervision: float = 1.0
    supervision: ClassVar[Literal["pixel", "image"]] = "image"
    least_new_classes: ClassVar[int] = 2

    @model_validator(mode="after")
    def _similarity_given(self) -> Self:
        if self.semantic_prior and not self.similarity:
            raise InputError(
                "the semantic prior needs to know how alike the classes are: give method.similarity "
                "(training.class_similarity.voc_similarity makes one for VOC), or set method.semantic_prior to 0"
            )
        return self


class Method(base.Method):
    config: Config
    similarity: Tensor

    def __init__(
        self,
        step: StepConfig,
        previous: Segmenter | None = None,
        mean: Mean = divide,
        inherited: dict[str, Tensor] | None = None,
    ) -> None:
        super().__init__(step, previous, mean, inherited)
        features, width, classes = (
            self.model.encoder.channels,
            self.config.localizer_channels,
            sum(step.task.channels),
        )
        self.localizer = Localizer(features, width, classes, step.model.activation)
        pairs, new, previous_classes = (
            self.config.similarity,
            step.task.new_classes,
            step.task.previous_classes,
        )
        self.register_buffer(
            "similarity", similarity_matrix(pairs, new, previous_classes), persistent=False
        )

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        before = self.previous_outputs(batch.images)
        now = self.outputs(batch.images)
        scores = self.scores(now.features, before.logits)
        unlabelled = (
            before.logits.shape[1] if self.step.task.labels == "new" else 1
        )  # channels without image labels
        losses = {
            "classification": classification_loss(
                self.image_scores(scores), batch.image_labels, unlabelled
            )
        }
        if self.config.prior in ("bce", "softmax_ce"):
            imitate = localization_prior_loss if self.config.prior == "bce" else distillation
            losses["prior"] = self.config.prior_weight * imitate(scores, before.logits)
        losses["encoder"] = self.config.encoder_distillation * encoder_distillation(
            now.features, before.features
        )
        if self.config.semantic_prior:
            semantic = semantic_prior_loss(
                scores, before.logits, batch.image_labels, self.similarity
            )
            losses["semantic_prior"] = self.config.semantic_prior * semantic
        if progress.epoch < self.config.warmup_epochs:
            # Zero, but it reaches the head: SGD decays only what has a gradient, and the published warm-up decays it.
            return losses | {"segmentation": 0 * now.logits.sum()}
        target_scores = self.target_scores(now.features, before.logits)
        confidence = keep_labelled(target_scores.softmax(1), batch.image_labels)
        if self.config.affinity:
            confidence = pamr(
                batch.pixels,
                confidence,
                self.config.affinity_iterations,
                self.config.affinity_dilations,
            )
        masks = pseudo_masks(confidence)
        target, image_weight = pseudo_supervision(
            target_scores,
            before.logits,
            batch.image_labels,
            self.config.alpha,
            self.config.background_mix,
        )
        return losses | {
            "self_supervision": self.config.self_supervision
            * self_supervision_loss(scores, masks, batch.image_labels),
            "segmentation": segmentation_loss(now.logits, target, image_weight, self.mean),
        }

    def scores(self, features: Tensor, previous_logits: Tensor) -> Tensor:
        """The localizer's scores [B, C, h, w]; with a prior that is not learned, the previous channels are what it says."""
        scores = base.full_precision(self.localizer(features))
        if self.config.prior not in ("constant", "fixed"):
            return scores
        given = (
            previous_logits if self.config.prior == "fixed" else torch.ones_like(previous_logits)
        )
        return torch.cat([given, scores[:, given.shape[1] :]], 1)

    def image_scores(self, scores: Tensor) -> Tensor:
        """One score for each image and channel, pooled from the map: [B, C, h, w] -> [B, C]."""
        match self.config.pooling:
            case "attention":
                return attention_pooling(scores)
            case "gap":
                return scores.mean((2, 3))
            case kind:
                return ngwp_focal_pooling(scores, focal=kind == "ngwp_focal")

    @torch.no_grad()
    def target_scores(self, features: Tensor, previous_logits: Tensor) -> Tensor:
        """The scores in evaluation mode: what targets are made from."""
        self.localizer.eval()
        scores = self.scores(features, previous_logits)
        self.localizer.train()
        return scores

    def parameter_groups(self) -> list[dict]:
        localizer = {
            "name": "localizer",
            "params": list(self.localizer.parameters()),
            "initial_lr": self.config.localizer_lr,
        }
        return [*super().parameter_groups(), localizer]

    def learning_rate_factor(self, progress: base.Progress, group: str) -> float:
        """Constant during warm-up, then the poly schedule at the absolute iteration: a jump, as published."""
        return (
            1.0
            if progress.epoch < self.config.warmup_epochs
            else super().learning_rate_factor(progress, group)
        )

    def carried(self) -> dict[str, Tensor]:
        """The localizer, for pictures of what it saw; it plays no part in inference."""
        return {f"localizer.{name}": value for name, value in self.localizer.state_dict().items()}
