"""Penalise changes of important weights: the base classes of EWC, PI and RW.

The penalty is weight * sum_i importance_i (theta_i - theta_old_i)^2, where theta_old are the
previous model's weights. `training.importance` measures importance_i.
"""

from collections.abc import Callable, Iterable
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from training.config import MethodConfig
from training.importance import PREFIX, Importance, Recorder, flatten, scale_each_tensor
from training.losses import cross_entropy
from training.methods import base
from training.models.segmenter import upsample


class PenaltyConfig(MethodConfig):
    """The weight of the penalty."""

    weight: float = Field(ge=0)
    needs_importance: ClassVar[bool] = True
    # How many measures are added up, each scaled to at most 1.
    measures: ClassVar[int] = 1

    @property
    def curvature(self) -> float:
        """Return the penalty's second derivative at the most important weight."""
        return 2 * self.weight * self.measures

    @property
    def use_of_background(self) -> str:
        """Return "": where labels name no class, there is no loss of labels."""
        return ""


class PenaltyMethod(base.Method):
    """Cross-entropy and the penalty; a subclass names the recorder that measures importance."""

    config: PenaltyConfig
    recorder: ClassVar[type[Recorder]]

    def set_up(self) -> None:
        """Register the recorder, and the previous model's weights with their importance.

        Raises:
            KeyError: The parent step recorded no importance of this kind.
        """
        self.importance = Importance(self.model, self.inherited, self.recorder)
        self.sizes = [parameter.numel() for parameter in self.previous.parameters()]
        measured = [self.inherited[PREFIX + name] for name in self.recorder.measures]
        scaled = [scale_each_tensor(vector, self.sizes) for vector in measured]
        # The parent step publishes both, so a checkpoint need not hold them.
        self.strength = nn.Buffer(torch.stack(scaled).sum(0), persistent=False)
        self.anchor = nn.Buffer(flatten(self.previous.parameters()), persistent=False)

    def displacement(self) -> Tensor:
        """Return theta - theta_old of the previous model's weights, without gradient."""
        return flatten(self.model.parameters())[: len(self.anchor)] - self.anchor

    def prepare(self, batches: Callable[[], Iterable[base.Batch]]) -> None:
        """Store the initial weights in the recorder."""
        self.importance.begin(self.model)

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        """Return the loss of the masks and the penalty.

        The penalty carries no gradient here. `before_update` adds its gradient after the recorder
        has seen that of the loss of the masks alone.
        """
        logits = upsample(self.outputs(batch.images).logits, batch.masks.shape[-2:])
        distance = (self.strength * self.displacement().square()).sum()
        return {
            "segmentation": cross_entropy(logits, batch.masks, self.mean),
            "penalty": self.config.weight * distance,
        }

    def before_update(self, progress: base.Progress) -> None:
        """Record the gradients of the loss of the masks, then add the penalty's."""
        self.importance.record(self.model, progress.iteration)
        gradient = 2 * self.config.weight * self.strength * self.displacement()
        # The new classifier has no penalty. It comes last among the parameters.
        pulls = gradient.split(self.sizes)
        for parameter, pull in zip(self.model.parameters(), pulls, strict=False):
            if parameter.grad is not None:
                parameter.grad += pull.view_as(parameter)

    def carried(self) -> dict[str, Tensor]:
        """Return the importance that this step recorded."""
        return self.importance.carried(self.model)
