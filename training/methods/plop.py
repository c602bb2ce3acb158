"""PLOP (Douillard et al., CVPR 2021): keep what maps look like at every level, and read old classes back out of background.

Local POD embeddings of the encoder's stages, the head's output and the logits are kept alike (`training.pod`). Background
pixels of which the previous model is surer than of half of those it says the same of take its prediction as their label,
the others are ignored; an image counts as much as its background is known, so that new classes do not take over. The
thresholds, one for each class predicted, are found before the first iteration in one pass over the step's images.
"""

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, distributed
from torch.nn import functional as F

from training.config import VOID, MethodConfig, StepConfig
from training.losses import Mean, divide
from training.methods import base
from training.models.segmenter import Segmenter, upsample
from training.pod import pod_loss
from training.pseudo_labels import (
    ENTROPY_BINS,
    entropy_histogram,
    entropy_labels,
    median_thresholds,
)


class Config(MethodConfig):
    """The settings of the authors' scripts; each part can be switched off."""

    name: Literal["plop"] = "plop"
    pod_weight: float = Field(default=0.01, ge=0)  # of the distance of each level but the last
    pod_logits_weight: float = Field(default=0.0005, ge=0)
    pseudo_labels: bool = True
    least_threshold: float = Field(
        default=0.001, ge=0
    )  # of the entropy below which a prediction becomes a label
    published_median: bool = (
        False  # thresholds as the public code computes them, which are not medians
    )
    adaptive_weight: bool = True  # an image counts as much as its background has labels
    background_initialisation: bool = True


class Method(base.Method):
    config: Config
    thresholds: Tensor  # [C_old]

    def __init__(
        self,
        step: StepConfig,
        previous: Segmenter | None = None,
        mean: Mean = divide,
        inherited: dict[str, Tensor] | None = None,
    ) -> None:
        super().__init__(step, previous, mean, inherited)
        self.register_buffer("thresholds", torch.zeros(sum(step.task.channels[:-1])))

    def new_classifier(self) -> dict[str, Tensor]:
        """As MiB's: the new classes start as equal shares of the background."""
        return (
            self.background_shares()
            if self.config.background_initialisation
            else super().new_classifier()
        )

    def prepare(self, batches: Callable[[], Iterable[base.Batch]]) -> None:
        """Find the thresholds."""
        if not self.config.pseudo_labels:
            return
        histogram = torch.zeros(
            len(self.thresholds), ENTROPY_BINS, dtype=torch.int64, device=self.thresholds.device
        )
        for batch in batches():
            previous = upsample(self.previous_outputs(batch.images).logits, batch.masks.shape[-2:])
            histogram += entropy_histogram(batch.masks, previous, sum(self.step.task.channels))
        if distributed.is_initialized():
            distributed.all_reduce(histogram)
        self.thresholds.copy_(
            median_thresholds(histogram, self.config.least_threshold, self.config.published_median)
        )

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        with torch.no_grad():
            before = self.levels(self.previous, batch.images)
        now = self.levels(self.model, batch.images)
        weights = [self.config.pod_weight] * (len(now) - 1) + [self.config.pod_logits_weight]
        size = batch.masks.shape[-2:]
        logits, previous = upsample(now[-1], size), upsample(before[-1], size)
        return {
            "segmentation": self.segmentation(logits, previous, batch.masks),
            "distillation": pod_loss(now, before, weights),
        }

    def levels(self, model: Segmenter, images: Tensor) -> list[Tensor]:
        """The maps that are kept alike, from the first stage to the logits."""
        outputs, stages = model.with_stages(images)
        return [base.full_precision(values) for values in (*stages, outputs.head, outputs.logits)]

    def segmentation(self, logits: Tensor, previous_logits: Tensor, masks: Tensor) -> Tensor:
        """Cross-entropy to masks and pseudo-labels, mean over all pixels, labelled or not."""
        if not self.config.pseudo_labels:
            return F.cross_entropy(logits, masks, ignore_index=VOID, reduction="none").mean()
        labels, known = entropy_labels(masks, previous_logits, self.thresholds, logits.shape[1])
        pixels = F.cross_entropy(logits, labels, ignore_index=VOID, reduction="none")
        return (pixels * known[:, None, None] if self.config.adaptive_weight else pixels).mean()
