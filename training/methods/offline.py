"""Train by the offline route from image labels, with which WILSON is compared.

For the first epochs a classifier learns from image labels. It is a network of its own, with a copy
of the previous model's encoder. Then it is frozen, and its maps become hard labels of the new
classes. From these and from the previous model, the segmentation model learns by WILSON's loss (Eq.
8). The target of a previous class is the previous model's sigmoid. The target of background is the
smaller of its sigmoid and the label.

Step 0 may be trained so, too, where there is no previous model. The classifier's encoder then
starts from the step's own, pretrained or random, and the loss to the hard labels is that of
fine-tuning with loss bce, background included.

The paper names the two classifiers and not their settings, so this is a reconstruction. The labels
are computed again for each crop, where the paper has files of whole images.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from training.binary_method import BinaryMethodConfig
from training.config import ModelConfig
from training.image_label_losses import (
    classification_loss,
    ngwp_focal_pooling,
    self_supervision_loss,
)
from training.losses import binary_cross_entropy, joint_binary_cross_entropy
from training.methods import base
from training.models.backbones import build_encoder
from training.models.segmenter import Segmenter, upsample
from training.pamr import DILATIONS, pamr
from training.pseudo_labels import keep_labelled, pseudo_masks

# Share of the classifier's epochs before a single-stage classifier also learns from its own masks,
# where the document does not give the epochs.
LABELS_ALONE = 0.2


class Config(BinaryMethodConfig):
    """How the classifier is trained and how its maps become labels.

    `cam` are the class activation maps of a classifier with global average pooling (Zhou et al.,
    CVPR 2016). `single_stage` is normalised weighted pooling with a focal penalty and
    self-supervision, refined by PAMR (Araslanov and Roth, CVPR 2020).
    """

    name: Literal["offline"] = "offline"
    pseudo_labels: Literal["cam", "single_stage"] = "cam"
    # Of the step's epochs. The segmentation model gets the others.
    classifier_epochs: float = Field(default=10, gt=0)
    # The learning rate of the classifier's last layer. Its encoder has optimization.encoder_lr.
    classifier_lr: float = Field(default=0.01, ge=0)
    # For cam: a pixel below this share of a class's highest score is background.
    background_threshold: float = Field(default=0.2, gt=0, lt=1)
    # For single_stage: epochs before the classifier also learns from its own masks. None is a fifth
    # of the classifier's.
    labels_alone_epochs: float | None = Field(
        default=None, ge=0, json_schema_extra={"legacy": None}
    )
    # For single_stage: distances of PAMR's neighbours, in cells of the map.
    affinity_dilations: tuple[PositiveInt, ...] = Field(
        default=DILATIONS, min_length=1, json_schema_extra=dict[str, Any](legacy=DILATIONS)
    )
    # Where hard labels are computed, and the loss to them: on the encoder's map, or on the image.
    resolution: Literal["stride", "image"] = Field(
        default="stride", json_schema_extra={"legacy": "stride"}
    )
    supervision: ClassVar[Literal["pixel", "image"]] = "image"
    least_new_classes: ClassVar[int] = 2

    @property
    def unused_fields(self) -> Mapping[str, str]:
        """Return the fields of the kind of pseudo-labels that is not asked for."""
        others = ("background_threshold",)
        if self.pseudo_labels == "cam":
            others = ("labels_alone_epochs", "affinity_dilations")
        return dict.fromkeys(others, f"pseudo_labels is {self.pseudo_labels!r}")

    def check_first_step(self) -> None:
        """Allow step 0: without a previous model the hard labels are all that is learned."""

    @property
    def epochs_before_segmentation(self) -> float:
        """Return the epochs of the classifier."""
        return self.classifier_epochs

    @property
    def use_of_background(self) -> str:
        """Return what the classifier does."""
        return "finds its classes against a background"


class Classifier(nn.Module):
    """An encoder and a 1x1 convolution: images [B, 3, H, W] -> maps [B, 1 + classes, h, w].

    Channel 0 is background and has the score 1 everywhere.
    """

    def __init__(self, config: ModelConfig, previous: Segmenter | None, classes: int) -> None:
        super().__init__()
        self.encoder = build_encoder(config)
        if previous is not None:
            self.encoder.load_state_dict(previous.encoder.state_dict())
        self.scores = nn.Conv2d(self.encoder.channels, classes, 1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the maps before any softmax."""
        maps = self.scores(self.encoder(images))
        return torch.cat([torch.ones_like(maps[:, :1]), maps], 1)


class Method(base.Method):
    """The classifier's losses first, then WILSON's segmentation loss to its hard labels."""

    config: Config

    def set_up(self) -> None:
        """Register the classifier. It has a channel for each class that the image labels name."""
        task = self.step.task
        labelled = task.new_classes if task.labels == "new" else task.classes
        # These are the last channels of the model.
        self.labelled = len(labelled)
        previous = None if self.is_first else self.previous
        self.classifier = Classifier(self.step.model, previous, self.labelled)

    def prepare(self, batches: Callable[[], Iterable[base.Batch]]) -> None:
        """Start the classifier's encoder of step 0 as the model's, which has pretrained weights."""
        if self.is_first:
            self.classifier.encoder.load_state_dict(self.model.encoder.state_dict())

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        """Return the losses of the network that is training; the other network's loss is 0."""
        known = batch.image_labels[:, -self.labelled :]
        classifying = progress.iteration < self.handover(progress)
        self.classifier.train(classifying)
        if classifying:
            losses = self.classifier_losses(batch, known, progress)
            return losses | {"segmentation": _zero_loss(self.model)}
        before = None if self.is_first else self.previous_outputs(batch.images)
        now = self.outputs(batch.images)
        labels = self.hard_labels(batch, known)
        logits = self.at_resolution(now.logits, batch)
        if before is None:
            segmentation = binary_cross_entropy(logits, labels, self.mean)
        else:
            previous = self.at_resolution(before.logits, batch)
            segmentation = joint_binary_cross_entropy(logits, labels, previous, "smaller")
        return {"classification": _zero_loss(self.classifier), "segmentation": segmentation}

    def classifier_losses(
        self, batch: base.Batch, known: Tensor, progress: base.Progress
    ) -> dict[str, Tensor]:
        """Return the classifier's losses.

        Args:
            batch: The images.
            known: [B, classes], the image labels of the classifier's channels without background.
            progress: Decides whether a single-stage classifier learns from its own masks already.
        """
        maps = base.full_precision(self.classifier(batch.images))
        if self.config.pseudo_labels == "cam":
            return {"classification": classification_loss(maps.mean((2, 3)), known)}
        losses = {"classification": classification_loss(ngwp_focal_pooling(maps), known)}
        if progress.iteration >= self.labels_alone(progress):
            confidence = keep_labelled(maps.detach().softmax(1), known)
            masks = pseudo_masks(self.refine(batch, confidence))
            losses["self_supervision"] = self_supervision_loss(maps, masks, known)
        return losses

    @torch.no_grad()
    def hard_labels(self, batch: base.Batch, known: Tensor) -> Tensor:
        """Return the best channel of each pixel, out of background and the image's classes.

        Args:
            batch: The images.
            known: [B, classes], the image labels of the classifier's channels without background.

        Returns:
            Channels of the segmentation model, int64 [B, h, w], or [B, H, W] with `resolution`
            image.
        """
        maps = base.full_precision(self.classifier(batch.images))
        maps = self.at_resolution(maps, batch)
        if self.config.pseudo_labels == "cam":
            activation = maps.relu()
            confidence = activation / activation.amax((2, 3), keepdim=True).clamp(min=1e-5)
            confidence[:, 0] = self.config.background_threshold
            confidence = keep_labelled(confidence, known)
        else:
            confidence = self.refine(batch, keep_labelled(maps.softmax(1), known))
        best = confidence.argmax(1)
        first = sum(self.step.task.channels) - self.labelled
        return torch.where(best > 0, best - 1 + first, 0)

    def at_resolution(self, maps: Tensor, batch: base.Batch) -> Tensor:
        """Return maps [B, C, h, w] as they are, or interpolated to the image."""
        if self.config.resolution == "stride":
            return maps
        return upsample(maps, batch.images.shape[-2:])

    def refine(self, batch: base.Batch, confidence: Tensor) -> Tensor:
        """Return the confidence [B, C, h, w] refined by PAMR."""
        return pamr(batch.pixels, confidence, dilations=self.config.affinity_dilations)

    def labels_alone(self, progress: base.Progress) -> float:
        """Return the first iteration in which a single-stage classifier reads its own masks."""
        if self.config.labels_alone_epochs is None:
            return LABELS_ALONE * self.handover(progress)
        return self.config.labels_alone_epochs * progress.per_epoch

    def parameter_groups(self) -> list[dict]:
        """Return the model's groups, and one each for the classifier's encoder and last layer."""
        encoder = {
            "name": "classifier_encoder",
            "params": list(self.classifier.encoder.parameters()),
            "initial_lr": self.step.optimization.encoder_lr,
        }
        scores = {
            "name": "classifier_scores",
            "params": list(self.classifier.scores.parameters()),
            "initial_lr": self.config.classifier_lr,
        }
        return [*super().parameter_groups(), encoder, scores]

    def learning_rate_factor(self, progress: base.Progress, group: str) -> float:
        """Return the poly schedule of the network that is training, and 0 for the other network.

        A learning rate of 0 also stops weight decay.
        """
        handover = self.handover(progress)
        classifying = progress.iteration < handover
        if group.startswith("classifier") != classifying:
            return 0.0
        if classifying:
            own = base.Progress(progress.iteration, handover, progress.per_epoch)
        else:
            done = progress.iteration - handover
            own = base.Progress(done, progress.total - handover, progress.per_epoch)
        return super().learning_rate_factor(own, group)

    def handover(self, progress: base.Progress) -> int:
        """Return the first iteration of the segmentation model; the classifier is frozen then."""
        return min(math.ceil(self.config.classifier_epochs * progress.per_epoch), progress.total)


def _zero_loss(module: nn.Module) -> Tensor:
    """Return 0 with a gradient for every parameter, which DDP expects."""
    return 0 * torch.stack([parameter.sum() for parameter in module.parameters()]).sum()
