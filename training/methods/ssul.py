"""Train by SSUL (Cha et al., NeurIPS 2021): unknown apart from background, and a frozen network.

What an image shows and the step does not name is unknown: background that is salient. The
classifier of new classes starts as unknown's. From step 1 on, encoder, head, earlier classifiers
and all norms are frozen, so only the newest classifier and unknown learn, and background by very
little. Where the previous model is sure of a class, its prediction is the label.

With images kept of earlier steps (`scenario.memory`), half of each batch, it is SSUL-M. Without
saliency no pixel is labelled unknown: a variant that is not the paper's.
"""

import math
from collections.abc import Iterable
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from training.config import InputError, MethodConfig
from training.losses import binary_cross_entropy
from training.methods import base
from training.models.segmenter import upsample
from training.models.step_classifiers import StepClassifier
from training.pseudo_labels import confident_classes, unknown_where_salient


class Config(MethodConfig):
    """The settings of the authors' code. Step 0 is trained by SSUL, too."""

    name: Literal["ssul"] = "ssul"
    # The companion layer that is above 0 where something salient is; None labels nothing unknown.
    saliency: str | None = None
    # The previous model's sigmoid from which on its class is the label. None takes no such labels.
    pseudo_label_threshold: float | None = Field(default=0.7, ge=0, le=1)
    # Of background's learning rate from step 1 on.
    background_lr_factor: float = Field(default=1e-4, ge=0)
    # The probability that each class starts at in step 0, and background at one minus it. None is
    # the authors', at random.
    initial_probability: float | None = Field(default=None, gt=0, lt=1)
    needs_previous: ClassVar[bool] = False
    halves_batches: ClassVar[bool] = True
    classifier: ClassVar[Literal["pointwise", "ssul"] | None] = "ssul"
    layer_fields: ClassVar[tuple[str, ...]] = ("saliency",)

    def check_later_step(self) -> None:
        """Raise InputError for a start that only step 0 has."""
        if self.initial_probability is not None:
            raise InputError(
                "the classifiers of later steps start as unknown's: leave "
                "method.initial_probability out, which base.method may have"
            )

    @property
    def use_of_background(self) -> str:
        """Return what the unknown class is."""
        return "divides background into known and unknown"


class Method(base.Method):
    """The binary cross-entropy of all channels to masks, unknown and pseudo-labels."""

    config: Config

    def set_up(self) -> None:
        """Start step 0 where classes are rare, if the document says so."""
        if self.config.initial_probability is None:
            return
        rare = math.log(self.config.initial_probability / (1 - self.config.initial_probability))
        for head in (self.model.classifiers[0], self.model.unknown, self.model.background):
            start = -rare if head is self.model.background else rare
            nn.init.constant_(head.get_parameter("scores.bias"), start)

    @property
    def first(self) -> bool:
        """Return whether this is step 0."""
        return len(self.step.task.groups) == 1

    def new_classifier(self) -> dict[str, Tensor]:
        """Return a copy of unknown's classifier, whose row each new class gets."""
        number = len(self.step.task.groups) - 1
        new = len(self.step.task.new_classes)
        state = {}
        for name, value in self.previous.state_dict().items():
            if name.startswith("unknown."):
                own = name.replace("unknown", f"classifiers.{number}", 1)
                repeated = (new, *[1] * (value.ndim - 1))
                state[own] = value.repeat(repeated) if ".scores." in name else value
        return state

    def frozen(self) -> Iterable[nn.Module]:
        """Return all but what learns: newest classifier, unknown and background, norms apart."""
        if self.first:
            return super().frozen()
        norms = [norm for each in self.learning for norm in each.norms]
        return [*self.all_but_newest(), *norms]

    @property
    def learning(self) -> list[StepClassifier]:
        """Return the newest classifier, unknown's and background's."""
        heads = (self.model.classifiers[-1], self.model.unknown, self.model.background)
        return [head for head in heads if isinstance(head, StepClassifier)]

    def forward(self, batch: base.Batch, progress: base.Progress) -> dict[str, Tensor]:
        """Return the loss, at image resolution."""
        head = base.full_precision(self.model.head(self.model.encoder(batch.images)))
        size = batch.masks.shape[-2:]
        logits = upsample(base.full_precision(self.model.scores(head)), size)
        target = batch.masks
        if self.config.saliency is not None:
            target = unknown_where_salient(
                target, batch.layers[self.config.saliency], logits.shape[1] - 1
            )
        if not self.first and self.config.pseudo_label_threshold is not None:
            with torch.no_grad():
                # Encoder and head are the previous model's.
                before = upsample(base.full_precision(self.previous.scores(head)), size)
            target = confident_classes(
                target, before, logits.shape[1] - 1, self.config.pseudo_label_threshold
            )
        return {"segmentation": binary_cross_entropy(logits, target, self.mean)}

    def parameter_groups(self) -> list[dict]:
        """Return all parameters in step 0, then the newest classifier, unknown and background."""
        rate = self.step.optimization.head_lr
        if self.first:
            encoder, head = super().parameter_groups()
            heads = (self.model.background, self.model.unknown)
            head["params"] += [parameter for each in heads for parameter in each.parameters()]
            return [encoder, head]
        newest, unknown, background = (list(each.parameters()) for each in self.learning)
        slow = rate * self.config.background_lr_factor
        return [
            {"name": "head", "params": newest + unknown, "initial_lr": rate},
            {"name": "background", "params": background, "initial_lr": slow},
        ]
