"""Train by EWF, Endpoints Weight Fusion (Xiao et al., CVPR 2023), on top of another method.

A step is trained by that method, with the earlier classifiers fixed. Then each weight becomes a
weighted mean of what it was before the step and after it, so that the model lies between the two
endpoints. The mean takes a moment and no images.
"""

import math
from collections.abc import Callable, Iterable
from typing import Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from training.binary_method import BinaryMethodConfig
from training.config import InputError, MethodConfig
from training.iteration import method_class
from training.losses import Mean, divide
from training.method_documents import AnyMethod
from training.methods import base
from training.models.segmenter import Segmenter
from training.step_config import StepConfig


class Config(MethodConfig):
    """The method that trains the step, and the share of its weights in the mean.

    The paper trains by PLOP and others, such as MiB.
    """

    name: Literal["ewf"] = "ewf"
    trained_by: AnyMethod
    # None is the paper's: the square root of the new classes' share of all classes so far.
    share: float | None = Field(default=None, ge=0, le=1)

    @property
    def records_importance(self) -> bool:
        """Return whether the training method records how much each weight matters."""
        return self.trained_by.records_importance

    @property
    def blind_to_old_labels(self) -> str:
        """Return why labels of previous classes teach the training method nothing, or ""."""
        return self.trained_by.blind_to_old_labels

    def with_current_recipe(self) -> Self:
        """Return the document as a plan holds it, with the training method's recipe, too."""
        current = super().with_current_recipe()
        return current.model_copy(update={"trained_by": self.trained_by.with_current_recipe()})

    @model_validator(mode="after")
    def _trained_from_masks(self) -> Self:
        method = self.trained_by
        needs_more = method.needs_importance or method.needs_memory or method.needs_reserved
        needs_more = needs_more or method.channels_for_later > 0
        another = method.trains and not method.all_at_once and not isinstance(method, Config)
        # A probe takes any classifier, and trains none that a step could start from.
        usual = method.classifier == "pointwise" and not method.halves_batches
        alone = usual and not method.layers and method.supervision == "pixel"
        if needs_more or not another or not alone:
            raise InputError(
                f"ewf averages what another method trains, and cannot take {method.name!r}: give "
                "method.trained_by one that learns from masks and the previous model alone, and "
                "trains pointwise classifiers, such as mib or plop"
            )
        if isinstance(method, BinaryMethodConfig) and method.initial_probability == "shares":
            raise InputError(
                f"ewf's step does not know the pixel shares that {method.name!r} would start from: "
                "give method.trained_by.initial_probability one number, such as 0.01, or leave it "
                "out"
            )
        return self

    @property
    def use_of_background(self) -> str:
        """Return what the training method does with background."""
        return self.trained_by.use_of_background


class Method(base.Method):
    """The training method's losses; then the mean of the weights before and after."""

    config: Config

    def __init__(
        self,
        step: StepConfig,
        previous: Segmenter | None = None,
        mean: Mean = divide,
        inherited: dict[str, Tensor] | None = None,
    ) -> None:
        """Build the training method, which builds the model."""
        nn.Module.__init__(self)
        assert isinstance(step.method, Config)
        self.step = step
        self.config = step.method
        inner = step.model_copy(update={"method": step.method.trained_by})
        self.trained_by = method_class(inner.method)(inner, previous, mean, inherited)
        self.unregistered = self.trained_by.unregistered
        # The loop folds the previous model's norms, so its weights are noted here.
        self.before = dict(self.previous.state_dict())

    @property
    def model(self) -> Segmenter:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return the model that the training method trains."""
        return self.trained_by.model

    @property
    def share(self) -> float:
        """Return the share of the trained weights in the mean."""
        if self.config.share is not None:
            return self.config.share
        task = self.step.task
        return math.sqrt(len(task.new_classes) / len(task.classes))

    def frozen(self) -> Iterable[nn.Module]:
        """Return the earlier classifiers, and what the training method freezes."""
        return [*self.trained_by.frozen(), *self.model.classifiers[:-1]]

    def prepare(self, batches: Callable[[], Iterable[base.Batch]]) -> None:
        """Let the training method look at the data."""
        self.trained_by.prepare(batches)

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        """Return the training method's losses."""
        return self.trained_by(batch, progress)

    def before_update(self, progress: base.Progress) -> None:
        """Let the training method see the gradients."""
        self.trained_by.before_update(progress)

    def finish(self) -> None:
        """Average each tensor that the previous model has, statistics of norms included."""
        for name, now in self.model.state_dict().items():
            if name in self.before and now.is_floating_point():
                now.lerp_(self.before[name].to(now), 1 - self.share)

    def parameter_groups(self) -> list[dict]:
        """Return the training method's parameter groups."""
        return self.trained_by.parameter_groups()

    def learning_rate_factor(self, progress: base.Progress, group: str) -> float:
        """Return the training method's factor on the learning rate."""
        return self.trained_by.learning_rate_factor(progress, group)

    def carried(self) -> dict[str, Tensor]:
        """Return what the training method publishes beside the model."""
        return self.trained_by.carried()
