"""Define what a method is: a module whose forward pass returns named losses.

The loop in `training.fit` sums the losses, logs each by its name, and owns everything else: the
backward pass, precision, workers, the schedule, checkpoints. DDP wraps the method itself. A module
that a method registers, such as a localizer, is therefore moved, synchronised and saved with the
model. The previous model is not registered, because it is frozen and belongs to the parent step.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.config import MethodConfig
from training.initial_bias import initial_bias
from training.losses import Mean, divide, initialise_from_background
from training.models.segmenter import Outputs, Segmenter
from training.step_config import StepConfig


class Batch(NamedTuple):
    """One worker's part of a global batch, on its device.

    The memory of `pixels` is reused: the loop overwrites it when it loads the next batch.
    """

    # uint8 [B, 3, H, W], the cropped images.
    pixels: Tensor
    # float [B, 3, H, W], the same images normalised.
    images: Tensor
    # int64 [B, H, W], channels of the classifier and 255 for void; None in steps with image labels.
    targets: Tensor | None
    # float [B, channels - 1], 1 where the class is known to be in the image.
    image_labels: Tensor
    # int32 [B, H, W], cut like the masks: the companion layers that the method reads, each by the
    # value of the method's field that names it (`MethodConfig.layer_fields`).
    layers: Mapping[str, Tensor] = MappingProxyType({})
    # bool [B], 1 where the image is kept of an earlier step; None in steps that keep none.
    kept: Tensor | None = None

    @property
    def masks(self) -> Tensor:
        """Return the targets; raise ValueError in a step that has image labels only."""
        if self.targets is None:
            raise ValueError("this method learns from masks, and the step has image labels only")
        return self.targets

    @property
    def is_kept(self) -> Tensor:
        """Return which images are kept of earlier steps, bool [B]."""
        if self.kept is None:
            return torch.zeros(len(self.images), dtype=torch.bool, device=self.images.device)
        return self.kept


@dataclass(frozen=True)
class Progress:
    """How far a step's training has come; iterations count from 0."""

    iteration: int
    total: int  # iterations of the step
    per_epoch: int  # iterations

    @property
    def epoch(self) -> float:
        """Return the number of epochs trained so far, with its fraction."""
        return self.iteration / self.per_epoch


class Method(nn.Module):
    """Base class of all methods.

    A new method is one file with a subclass. It implements `forward`, and overrides another
    function where it differs from the default. State that changes during training must be a
    parameter or a buffer, so that a checkpoint holds it.

    Attributes:
        step: The document of the step.
        config: The method's own document.
        model: The model that is trained. It starts from the previous model's weights.
        mean: Turns a sum over pixels or images into a mean over the global batch
            (`training.losses.Mean`).
        inherited: The tensors that the parent step's method returned from `carried`.
    """

    def __init__(
        self,
        step: StepConfig,
        previous: Segmenter | None = None,
        mean: Mean = divide,
        inherited: dict[str, Tensor] | None = None,
    ) -> None:
        """Build the model, then call `set_up`.

        Args:
            step: The document of the step.
            previous: The parent step's model, frozen; None in step 0.
            mean: The mean over the global batch; the default is that of a single worker.
            inherited: What the parent step's method carried on; None in step 0.
        """
        super().__init__()
        self.step = step
        self.config: MethodConfig = step.method
        self.mean = mean
        self.inherited = inherited or {}
        self.model = Segmenter(step.model, step.task.channels)
        bias = initial_bias(step)
        if bias is not None:
            self.model.classifiers[-1].load_state_dict({"bias": bias}, strict=False)
        # The tuple hides the previous model from nn.Module, which would register it.
        self.unregistered = (previous,)
        if previous is not None:
            self.model.load_state_dict(previous.state_dict() | self.new_classifier())
        self.set_up()

    def set_up(self) -> None:
        """Register what the method trains or stores besides the model; by default nothing.

        Random weights are drawn here, after the model's, so that they follow from the step's seed.
        """

    @property
    def previous(self) -> Segmenter:
        """Return the frozen model of the parent step; raise ValueError in step 0."""
        (model,) = self.unregistered
        if model is None:
            raise ValueError(f"{self.step.method.name} needs a previous model, and step 0 has none")
        return model

    @property
    def is_first(self) -> bool:
        """Return whether this is step 0, which has no previous model."""
        return self.unregistered[0] is None

    def new_classifier(self) -> dict[str, Tensor]:
        """Return the entries of the initial model that are not the previous model's.

        The default is the new classes' classifier with its random weights.
        """
        inherited = self.previous.state_dict()
        own = self.model.state_dict()
        return {name: value for name, value in own.items() if name not in inherited}

    def background_shares(self) -> dict[str, Tensor]:
        """Return MiB's initial classifier, for use in `new_classifier`.

        The new classes take the background's weights. They and the background share its probability
        equally (`training.losses.initialise_from_background`).
        """
        newest = f"classifiers.{len(self.step.task.groups) - 1}"
        inherited = self.previous.state_dict()
        weight = inherited["classifiers.0.weight"]
        bias = inherited["classifiers.0.bias"].clone()
        new_weight, new_bias, background_bias = initialise_from_background(
            weight[0], bias[:1], len(self.step.task.new_classes)
        )
        bias[:1] = background_bias
        return {
            f"{newest}.weight": new_weight,
            f"{newest}.bias": new_bias,
            "classifiers.0.bias": bias,
        }

    def frozen(self) -> Iterable[nn.Module]:
        """Return the modules that do not learn and stay in evaluation mode.

        The default is what the document says (`Optimization.frozen`).
        """
        if self.step.optimization.frozen == "encoder":
            return [self.model.encoder]
        if self.step.optimization.frozen == "all_but_newest":
            return self.all_but_newest()
        return []

    def all_but_newest(self) -> list[nn.Module]:
        """Return encoder, head and all classifiers but the newest, for use in `frozen`."""
        return [self.model.encoder, self.model.head, *self.model.classifiers[:-1]]

    def outputs(self, images: Tensor) -> Outputs:
        """Return the model's outputs for normalised images [B, 3, H, W].

        Those of head and classifiers are in full precision. Features keep the encoder's, because
        they are large.
        """
        return _exact_logits(self.model(images))

    @torch.no_grad()
    def previous_outputs(self, images: Tensor) -> Outputs:
        """Return the previous model's outputs, as `outputs` does, without gradient."""
        return _exact_logits(self.previous(images))

    def prepare(self, batches: Callable[[], Iterable[Batch]]) -> None:
        """Look at the data or the weights before the first iteration; by default do nothing.

        The loop calls it once, without gradients, and not after a restart from a checkpoint.
        Results go into buffers.

        Args:
            batches: Returns this worker's part of the first epoch, cropped as in training, at each
                call.
        """

    def forward(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Return the losses by name, each a scalar with its weight applied.

        Training minimises their sum.
        """
        raise NotImplementedError

    def before_update(self, progress: Progress) -> None:
        """Read or change the gradients before the optimizer uses them; by default do nothing.

        The loop calls it without recording gradients. The `grad` of each parameter is that of the
        global batch, the same on all workers.
        """

    def finish(self) -> None:
        """Change the model after the last iteration; by default do nothing.

        The loop calls it once on each worker, without gradients, before the model is published.
        """

    def parameter_groups(self) -> list[dict]:
        """Return the optimizer's parameter groups: `name`, `params` and `initial_lr` of each."""
        optimization = self.step.optimization
        encoder = list(self.model.encoder.parameters())
        head = [*self.model.head.parameters(), *self.model.classifiers.parameters()]
        return [
            {"name": "encoder", "params": encoder, "initial_lr": optimization.encoder_lr},
            {"name": "head", "params": head, "initial_lr": optimization.head_lr},
        ]

    def learning_rate_factor(self, progress: Progress, group: str) -> float:
        """Return the factor on the group's initial learning rate.

        The default is the poly schedule, (1 - iteration / total) ** power.
        """
        return (1 - progress.iteration / progress.total) ** self.step.optimization.poly_power

    def carried(self) -> dict[str, Tensor]:
        """Return the tensors to publish beside the model; by default none.

        The next step's method gets them as `inherited`, and figures are drawn from them.
        """
        return {}


def full_precision(values: Tensor) -> Tensor:
    """Return half-precision outputs of autocast as float32: the losses sum over many pixels."""
    return values if values.dtype == torch.float64 else values.float()


def no_logits(features: Tensor) -> Tensor:
    """Return the logits of no previous model, [B, 0, h, w], for features [B, D, h, w]."""
    return full_precision(features[:, :0].detach())


def _exact_logits(outputs: Outputs) -> Outputs:
    head, logits = full_precision(outputs.head), full_precision(outputs.logits)
    return Outputs(outputs.features, head, logits)
