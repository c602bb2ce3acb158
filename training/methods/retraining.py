"""A probe, not a method to compare: keep the front of a trained model and train the rest anew, on labels of all seen classes.

What the new part reaches on the earlier classes is what the kept part still tells apart, whatever the old classifier made
of it.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from training.config import MethodConfig, StepConfig
from training.losses import Mean, cross_entropy, divide
from training.methods import base
from training.models.segmenter import Segmenter, upsample


class Config(MethodConfig):
    """`classifier`: encoder and head are kept; `decoder`: the encoder alone is."""

    name: Literal["retraining"] = "retraining"
    part: Literal["classifier", "decoder"] = "classifier"
    needs_previous: ClassVar[bool] = True


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
        fresh = Segmenter(step.model, step.task.channels)
        self.model.classifiers.load_state_dict(fresh.classifiers.state_dict())
        self.model.encoder.requires_grad_(False)
        if self.config.part == "decoder":
            self.model.head.load_state_dict(fresh.head.state_dict())
        else:
            self.model.head.requires_grad_(False)

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        with torch.no_grad():
            self.model.encoder.eval()
            features = self.model.encoder(batch.images)
        if self.config.part == "classifier":
            self.model.head.eval()
        logits = base.full_precision(self.model.decode(features).logits)
        return {
            "segmentation": cross_entropy(
                upsample(logits, batch.masks.shape[-2:]), batch.masks, self.mean
            )
        }
