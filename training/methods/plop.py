"""Train by PLOP (Douillard et al., CVPR 2021): local POD distillation and pseudo-labels by entropy.

Local POD embeddings of the encoder's stages, the head's output and the logits are distilled from
the previous model (`training.pod`). A background pixel takes the previous model's prediction as its
label where the prediction's entropy is below the threshold of its class. The other background
pixels are ignored. Each image is weighted by the share of its background that has labels, so that
new classes do not dominate. One pass over the step's images before training finds the thresholds.

The paper's thresholds are median entropies. The code divides the entropy by so much that it lies in
the lowest of the histogram's bins (`training.pseudo_labels.entropy`), so its thresholds, and ours,
say little more than which of these bins they lie in.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, distributed
from torch.nn import functional as F

from training.config import VOID, MethodConfig
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
    # The weight of each level's distance, but for the logits'.
    pod_weight: float = Field(default=0.01, ge=0)
    pod_logits_weight: float = Field(default=0.0005, ge=0)
    pseudo_labels: bool = True
    # A lower bound on the entropy thresholds.
    least_threshold: float = Field(default=0.001, ge=0)
    # The bin of the threshold is found as in the public code, by a running sum of the bins' numbers
    # instead of their counts. The authors' runs had that.
    published_median: bool = False
    # Weight each image by the share of its background that has labels.
    adaptive_weight: bool = True
    background_initialisation: bool = True

    @property
    def unused_fields(self) -> Mapping[str, str]:
        """Return the fields of pseudo-labels where there are none."""
        if self.pseudo_labels:
            return {}
        fields = ("least_threshold", "published_median", "adaptive_weight")
        return dict.fromkeys(fields, "pseudo_labels is False")

    @property
    def use_of_background(self) -> str:
        """Return where the pseudo-labels are found."""
        return "gives pseudo-labels to pixels of background"


class Method(base.Method):
    """Cross-entropy to masks and pseudo-labels, and local POD distillation."""

    config: Config
    thresholds: Tensor  # [C_old]

    def set_up(self) -> None:
        """Register the thresholds, which `prepare` computes."""
        self.register_buffer("thresholds", torch.zeros(sum(self.step.task.channels[:-1])))

    def new_classifier(self) -> dict[str, Tensor]:
        """Return MiB's initial classifier, or the default without `background_initialisation`."""
        if self.config.background_initialisation:
            return self.background_shares()
        return super().new_classifier()

    def prepare(self, batches: Callable[[], Iterable[base.Batch]]) -> None:
        """Compute the entropy threshold of each previous channel from the images of all workers."""
        if not self.config.pseudo_labels:
            return
        histogram = torch.zeros(
            len(self.thresholds), ENTROPY_BINS, dtype=torch.int64, device=self.thresholds.device
        )
        channels = sum(self.step.task.channels)
        for batch in batches():
            previous = upsample(self.previous_outputs(batch.images).logits, batch.masks.shape[-2:])
            histogram += entropy_histogram(batch.masks, previous, channels)
        if distributed.is_initialized():
            distributed.all_reduce(histogram)
        self.thresholds.copy_(
            median_thresholds(histogram, self.config.least_threshold, self.config.published_median)
        )

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        """Return both losses; the segmentation loss is at image resolution."""
        with torch.no_grad():
            before = self.levels(self.previous, batch.images)
        now = self.levels(self.model, batch.images)
        weights = [self.config.pod_weight] * (len(now) - 1) + [self.config.pod_logits_weight]
        size = batch.masks.shape[-2:]
        logits = upsample(now[-1], size)
        previous = upsample(before[-1], size)
        return {
            "segmentation": self.segmentation(logits, previous, batch.masks),
            "distillation": pod_loss(now, before, weights),
        }

    def levels(self, model: Segmenter, images: Tensor) -> list[Tensor]:
        """Return the maps that are distilled, from the first stage to the logits."""
        outputs, stages = model.with_stages(images)
        return [base.full_precision(values) for values in (*stages, outputs.head, outputs.logits)]

    def segmentation(self, logits: Tensor, previous_logits: Tensor, masks: Tensor) -> Tensor:
        """Return the cross-entropy to masks and pseudo-labels.

        It is a mean over all pixels, with or without a label, so it needs no `self.mean`.

        Args:
            logits: [B, C, H, W].
            previous_logits: [B, C_old, H, W]; they carry no gradient.
            masks: int64 [B, H, W].
        """
        if not self.config.pseudo_labels:
            return F.cross_entropy(logits, masks, ignore_index=VOID, reduction="none").mean()
        labels, known = entropy_labels(masks, previous_logits, self.thresholds, logits.shape[1])
        pixels = F.cross_entropy(logits, labels, ignore_index=VOID, reduction="none")
        if self.config.adaptive_weight:
            pixels = pixels * known[:, None, None]
        return pixels.mean()
