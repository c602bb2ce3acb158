"""The offline route from image labels: train a classifier, let it draw hard labels, train the segmentation model on these.

It is what WILSON (Cermelli et al., CVPR 2022) is compared with. A network of its own, with a copy of the previous model's
encoder, learns from image labels for the first epochs and is frozen; for the rest of the step its maps are hard labels of
the new classes. The segmentation model learns from these and from the previous model by WILSON's loss (Eq. 8): previous
classes are to be the previous model's sigmoid, background the smaller of its sigmoid and the label. The paper says no
more, so this is a reconstruction. Two things differ from labels in files: they are drawn anew from each crop, and at the
encoder's stride, which is where WILSON's loss lives.
"""

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from training.config import MethodConfig, ModelConfig, StepConfig
from training.losses import (
    Mean,
    classification_loss,
    divide,
    joint_binary_cross_entropy,
    ngwp_focal_pooling,
    self_supervision_loss,
)
from training.methods import base
from training.models.backbones import build_encoder
from training.models.segmenter import Segmenter
from training.pseudo_labels import keep_labelled, pamr, pseudo_masks

LABELS_ALONE = 0.2  # share of the classifier's epochs before a single-stage one also learns from its own masks (our choice)


class Config(MethodConfig):
    """`cam`: class activation maps of a classifier with global average pooling (Zhou et al., CVPR 2016). `single_stage`:
    normalised weighted pooling, a focal penalty and self-supervision, refined by PAMR (Araslanov & Roth, CVPR 2020)."""

    name: Literal["offline"] = "offline"
    pseudo_labels: Literal["cam", "single_stage"] = "cam"
    classifier_epochs: float = Field(
        default=10, gt=0
    )  # of the step's; the segmentation model gets the rest
    classifier_lr: float = Field(
        default=0.01, ge=0
    )  # of its last layer; its encoder learns at optimization.encoder_lr
    background_threshold: float = Field(
        default=0.2, gt=0, lt=1
    )  # cam: share of a class's highest score that is still the class
    supervision: ClassVar[Literal["pixel", "image"]] = "image"
    least_new_classes: ClassVar[int] = 2

    @property
    def epochs_before_segmentation(self) -> float:
        return self.classifier_epochs


class Classifier(nn.Module):
    """Images [B, 3, H, W] -> score maps [B, 1 + classes, h, w]; background, channel 0, is 1 everywhere."""

    def __init__(self, config: ModelConfig, previous: Segmenter, classes: int) -> None:
        super().__init__()
        self.encoder = build_encoder(config)
        self.encoder.load_state_dict(previous.encoder.state_dict())
        self.scores = nn.Conv2d(self.encoder.channels, classes, 1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """The maps, before any softmax."""
        maps = self.scores(self.encoder(images))
        return torch.cat([torch.ones_like(maps[:, :1]), maps], 1)


class Method(base.Method):
    config: Config

    def __init__(
        self,
        step: StepConfig,
        previous: Segmenter | None = None,
        mean: Mean = divide,
        inherited: dict[str, Tensor] | None = None,
    ) -> None:
        super().__init__(step, previous, mean, inherited)
        labelled = step.task.new_classes if step.task.labels == "new" else step.task.classes
        self.labelled = len(labelled)  # how many classes the image labels name: the last channels
        self.classifier = Classifier(step.model, self.previous, self.labelled)

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        known = batch.image_labels[:, -self.labelled :]
        classifying = progress.iteration < self.handover(progress)
        self.classifier.train(classifying)
        if classifying:
            return self.classifier_losses(batch, known, progress) | {
                "segmentation": _untouched(self.model)
            }
        before, now, labels = (
            self.previous_outputs(batch.images),
            self.outputs(batch.images),
            self.hard_labels(batch, known),
        )
        return {
            "classification": _untouched(self.classifier),
            "segmentation": joint_binary_cross_entropy(
                now.logits, labels, before.logits, "smaller"
            ),
        }

    def classifier_losses(
        self, batch: base.Batch, known: Tensor, progress: base.Progress
    ) -> dict[str, Tensor]:
        """What the classifier learns from; `known` [B, classes] are the image labels that it has channels for."""
        maps = base.full_precision(self.classifier(batch.images))
        if self.config.pseudo_labels == "cam":
            return {"classification": classification_loss(maps.mean((2, 3)), known)}
        losses = {"classification": classification_loss(ngwp_focal_pooling(maps), known)}
        if progress.iteration >= LABELS_ALONE * self.handover(progress):
            confidence = keep_labelled(maps.detach().softmax(1), known)
            losses["self_supervision"] = self_supervision_loss(
                maps, pseudo_masks(pamr(batch.pixels, confidence)), known
            )
        return losses

    @torch.no_grad()
    def hard_labels(self, batch: base.Batch, known: Tensor) -> Tensor:
        """Each pixel's best of background and the classes that its image has, as channels of the model, int64 [B, h, w]."""
        maps = base.full_precision(self.classifier(batch.images))
        if self.config.pseudo_labels == "cam":
            activation = maps.relu()
            confidence = activation / activation.amax((2, 3), keepdim=True).clamp(min=1e-5)
            confidence[:, 0] = self.config.background_threshold
            confidence = keep_labelled(confidence, known)
        else:
            confidence = pamr(batch.pixels, keep_labelled(maps.softmax(1), known))
        best = confidence.argmax(1)
        return torch.where(best > 0, best + sum(self.step.task.channels) - 1 - self.labelled, 0)

    def parameter_groups(self) -> list[dict]:
        encoder, scores = self.classifier.encoder.parameters(), self.classifier.scores.parameters()
        lr = self.step.optimization.encoder_lr
        return [
            *super().parameter_groups(),
            {"name": "classifier_encoder", "params": list(encoder), "initial_lr": lr},
            {
                "name": "classifier_scores",
                "params": list(scores),
                "initial_lr": self.config.classifier_lr,
            },
        ]

    def learning_rate_factor(self, progress: base.Progress, group: str) -> float:
        """A poly schedule for each of the two trainings, and 0, so that nothing moves or decays, for whoever does not train."""
        handover = self.handover(progress)
        classifying = progress.iteration < handover
        if group.startswith("classifier") != classifying:
            return 0.0
        start, total = (0, handover) if classifying else (handover, progress.total - handover)
        return super().learning_rate_factor(
            base.Progress(progress.iteration - start, total, progress.per_epoch), group
        )

    def handover(self, progress: base.Progress) -> int:
        """The iteration at which the classifier is frozen and the segmentation model begins to learn."""
        return min(math.ceil(self.config.classifier_epochs * progress.per_epoch), progress.total)


def _untouched(module: nn.Module) -> Tensor:
    """Zero that reaches every parameter: workers expect a gradient for each, even of what does not train now."""
    return 0 * torch.stack([parameter.sum() for parameter in module.parameters()]).sum()
