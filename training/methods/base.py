"""What a method is: a module whose forward pass gives named losses.

The loop in `training.fit` sums the losses, logs each by its name, and owns everything else: backward, precision, workers,
schedule, checkpoints. DDP wraps the method itself, so whatever it registers (a localizer, say) is moved, synchronised and
saved with the model. The previous model is held unregistered: it is frozen and belongs to the parent step.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.config import MethodConfig, StepConfig
from training.losses import Mean, divide, initialise_from_background
from training.models.segmenter import Outputs, Segmenter


class Batch(NamedTuple):
    """One worker's share of a global batch, on its device; `pixels` are overwritten when the next batch is asked for."""

    pixels: Tensor  # uint8 [B, 3, H, W], as cropped
    images: Tensor  # float [B, 3, H, W], normalised
    targets: (
        Tensor | None
    )  # int64 [B, H, W], channels of the classifier and 255; None in weak steps
    image_labels: Tensor  # float [B, channels - 1], 1 where the class is known to be in the image

    @property
    def masks(self) -> Tensor:
        """The targets of a step that has masks."""
        if self.targets is None:
            raise ValueError("this method learns from masks, and the step has image labels only")
        return self.targets


@dataclass(frozen=True)
class Progress:
    """How far a step has come; iterations count from 0."""

    iteration: int
    total: int
    per_epoch: int

    @property
    def epoch(self) -> float:
        return self.iteration / self.per_epoch


class Method(nn.Module):
    """Base of all methods. A new method is one file: a subclass with `forward`, and the rest where it differs.

    `previous` and `inherited` are what the parent step published: its model, and the tensors that its method carried on.
    What changes while the method trains is a parameter or a buffer, so that a checkpoint holds it.
    """

    def __init__(
        self,
        step: StepConfig,
        previous: Segmenter | None = None,
        mean: Mean = divide,
        inherited: dict[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.step = step
        self.config: MethodConfig = step.method
        self.mean = mean
        self.inherited = inherited or {}
        self.model = Segmenter(step.model, step.task.channels)
        self.unregistered = (previous,)  # in a tuple, so that nn.Module does not adopt it
        if previous is not None:
            self.model.load_state_dict(previous.state_dict() | self.new_classifier())

    @property
    def previous(self) -> Segmenter:
        """The frozen model of the parent step."""
        model = self.unregistered[0]
        if model is None:
            raise ValueError(f"{self.step.method.name} needs a previous model, and step 0 has none")
        return model

    def new_classifier(self) -> dict[str, Tensor]:
        """The classifier's entries that the parent step does not have (or not with these values)."""
        mine = self.model.state_dict()
        return {
            name: value for name, value in mine.items() if name not in self.previous.state_dict()
        }

    def background_shares(self) -> dict[str, Tensor]:
        """As `new_classifier`, where the new classes start as equal shares of the background (MiB, Eq. 10).

        They take its weights, and its bias less log(new classes + 1), as does the background itself.
        """
        newest, before = f"classifiers.{len(self.step.task.groups) - 1}", self.previous.state_dict()
        weight, bias = before["classifiers.0.weight"], before["classifiers.0.bias"].clone()
        new_weight, new_bias, bias[:1] = initialise_from_background(
            weight[0], bias[:1], len(self.step.task.new_classes)
        )
        return {
            f"{newest}.weight": new_weight,
            f"{newest}.bias": new_bias,
            "classifiers.0.bias": bias,
        }

    def outputs(self, images: Tensor) -> Outputs:
        """What the model makes of the images."""
        return Outputs(*map(full_precision, self.model(images)))

    @torch.no_grad()
    def previous_outputs(self, images: Tensor) -> Outputs:
        """What the previous model makes of the images; no gradient."""
        return Outputs(*map(full_precision, self.previous(images)))

    def prepare(self, batches: Callable[[], Iterable[Batch]]) -> None:
        """Called once before the first iteration, without gradients; what it finds out goes into buffers.

        Each call of `batches` gives this worker's share of the first epoch, cropped as training will see it.
        """

    def forward(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Named losses (scalars), already weighted: their sum is what is minimised."""
        raise NotImplementedError

    def before_update(self, progress: Progress) -> None:
        """Called between the backward pass and the optimizer's step, where nothing is recorded for another backward pass.

        `grad` of each parameter is the gradient of the global batch, the same on all workers; a method may change it.
        """

    def parameter_groups(self) -> list[dict]:
        """Groups for the optimizer: name, params and initial learning rate."""
        optimization = self.step.optimization
        encoder = list(self.model.encoder.parameters())
        head = [*self.model.head.parameters(), *self.model.classifiers.parameters()]
        return [
            {"name": "encoder", "params": encoder, "initial_lr": optimization.encoder_lr},
            {"name": "head", "params": head, "initial_lr": optimization.head_lr},
        ]

    def learning_rate_factor(self, progress: Progress, group: str) -> float:
        """Share of a group's initial learning rate at this iteration: the poly schedule (1 - i / total) ** power."""
        return (1 - progress.iteration / progress.total) ** self.step.optimization.poly_power

    def carried(self) -> dict[str, Tensor]:
        """Tensors published beside the model for later steps (`inherited`) and pictures: localizer, importance, ..."""
        return {}


def full_precision(values: Tensor) -> Tensor:
    """Half-precision outputs of autocast as float32: the losses sum over too many pixels for less."""
    return values if values.dtype == torch.float64 else values.float()
