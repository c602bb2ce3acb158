"""Fine-tuning: the step's labels alone. It is also how step 0 is trained."""

from collections.abc import Callable, Iterable
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from training.config import BACKGROUND, VOID, MethodConfig, StepConfig
from training.importance import Importance, PathIntegral, RiemannianWalk
from training.losses import Mean, binary_cross_entropy, cross_entropy, divide
from training.methods import base
from training.models.segmenter import Segmenter, upsample


class Config(MethodConfig):
    """Cross-entropy, or one binary cross-entropy per class, which is how WILSON trains step 0."""

    name: Literal["fine-tuning"] = "fine-tuning"
    loss: Literal["cross_entropy", "bce"] = "cross_entropy"
    # Learn nothing from background pixels: what is left of forgetting then is not the background's shift.
    ignore_background: bool = Field(default=False, json_schema_extra={"legacy": False})
    # Also publish how much each weight matters, which EWC, PI and RW need of step 0; the weights are the same.
    importance: bool = Field(default=False, json_schema_extra={"legacy": False})
    needs_previous: ClassVar[bool] = False

    @property
    def records_importance(self) -> bool:
        return self.importance


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
        recorders = (PathIntegral, RiemannianWalk) if self.config.importance else ()
        self.importance = Importance(self.model, self.inherited, *recorders)

    def prepare(self, batches: Callable[[], Iterable[base.Batch]]) -> None:
        self.importance.begin(self.model)

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        logits = upsample(self.outputs(batch.images).logits, batch.masks.shape[-2:])
        loss = cross_entropy if self.config.loss == "cross_entropy" else binary_cross_entropy
        masks = batch.masks
        if self.config.ignore_background:
            masks = torch.where(masks == BACKGROUND, VOID, masks)
        return {"segmentation": loss(logits, masks, self.mean)}

    def before_update(self, progress: base.Progress) -> None:
        if self.config.importance:
            self.importance.record(self.model, progress.iteration)

    def carried(self) -> dict[str, Tensor]:
        return self.importance.carried(self.model)
