"""Hold in place the weights that mattered: what EWC, PI and RW share."""

from collections.abc import Callable, Iterable
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from training.config import MethodConfig, StepConfig
from training.importance import PREFIX, Importance, Recorder, flat, scaled
from training.losses import Mean, cross_entropy, divide
from training.methods import base
from training.models.segmenter import Segmenter, upsample


class PenaltyConfig(MethodConfig):
    """Document of a method that holds in place the weights that mattered: weight of the penalty."""

    weight: float = Field(ge=0)
    needs_importance: ClassVar[bool] = True

    @property
    def curvature(self) -> float:
        return 2 * self.weight  # of the weights that matter most, which are scaled to 1


class PenaltyMethod(base.Method):
    """Cross-entropy and the penalty; a subclass says by which recorder importance is measured."""

    config: PenaltyConfig
    recorder: ClassVar[type[Recorder]]

    def __init__(
        self,
        step: StepConfig,
        previous: Segmenter | None = None,
        mean: Mean = divide,
        inherited: dict[str, Tensor] | None = None,
    ) -> None:
        super().__init__(step, previous, mean, inherited)
        self.importance = Importance(self.model, self.inherited, self.recorder)
        self.sizes = [parameter.numel() for parameter in self.previous.parameters()]
        measured = [
            scaled(self.inherited[PREFIX + name], self.sizes) for name in self.recorder.measures
        ]
        self.matters = nn.Buffer(torch.stack(measured).sum(0), persistent=False)
        self.anchor = nn.Buffer(flat(self.previous.parameters()), persistent=False)

    def moved(self) -> Tensor:
        """How far each weight of the previous model is from its old value."""
        return flat(self.model.parameters())[: len(self.anchor)] - self.anchor

    def prepare(self, batches: Callable[[], Iterable[base.Batch]]) -> None:
        self.importance.begin(self.model)

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        """The penalty is here as a number; its gradient comes later, when that of the other loss has been recorded."""
        logits = upsample(self.outputs(batch.images).logits, batch.masks.shape[-2:])
        penalty = self.config.weight * (self.matters * self.moved().square()).sum()
        return {"segmentation": cross_entropy(logits, batch.masks, self.mean), "penalty": penalty}

    def before_update(self, progress: base.Progress) -> None:
        self.importance.record(self.model, progress.iteration)
        gradient = 2 * self.config.weight * self.matters * self.moved()
        # New classifiers, which nothing pulls, are last among the parameters.
        for parameter, part in zip(
            self.model.parameters(), gradient.split(self.sizes), strict=False
        ):
            if parameter.grad is not None:
                parameter.grad += part.view_as(parameter)

    def carried(self) -> dict[str, Tensor]:
        return self.importance.carried(self.model)
