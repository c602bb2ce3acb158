"""Define the documents that decide a result.

A `StepConfig` holds everything that decides the weights of one incremental step, and nothing else:
no path, no name, no number of workers. Its canonical JSON, with the parent's key, is the identity
of the step (`orchestrator.store.canonical`). A field that a step does not use must not be in its
document, so each method has a document of its own.

A field with a legacy value is left out of the canonical JSON at that value. Keys made before the
field existed therefore stay valid.
"""

from collections.abc import Iterable
from importlib import import_module
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    model_validator,
)

BACKGROUND = 0
VOID = 255
T = TypeVar("T")


class InputError(ValueError):
    """The user's input cannot be used.

    The message says what is wrong, where, and what to do. Jobs show the message alone.
    """


class Document(BaseModel):
    """An immutable, strictly checked value.

    Unknown fields are refused, and equal documents have equal JSON.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def flatten_groups(groups: Iterable[Iterable[T]]) -> tuple[T, ...]:
    """Return the classes of all groups as one tuple, in order: ids or names."""
    return tuple(each for group in groups for each in group)


def classifier_channels(groups: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    """Return the output channels of each group's classifier; the first has background, too."""
    first, *later = (len(group) for group in groups)
    return (first + 1, *later)


class Task(Document):
    """What one step sees of its scenario.

    `groups` are the dataset's class ids in the order they were learned. They end with the step's
    own group, which is new; the others are previous. Later groups enter only by their effect on the
    selection.
    """

    # Content digest of the dataset's training split.
    data: str
    groups: tuple[tuple[int, ...], ...]
    # Digest of the selected images, in dataset order, and their number.
    selection: str
    images: int
    supervision: Literal["pixel", "image"]
    # Which classes the step's labels name; others read as background.
    labels: Literal["new", "seen"] = "new"
    # How training reads pixels marked void.
    void: Literal["background", "ignore"] = "background"
    # Digest of the images kept of earlier steps, and their number.
    memory: str | None = Field(default=None, json_schema_extra={"legacy": None})
    memory_images: int = Field(default=0, ge=0, json_schema_extra={"legacy": 0})

    @property
    def previous_classes(self) -> tuple[int, ...]:
        """Return the dataset ids of the classes learned before this step, without background."""
        return flatten_groups(self.groups[:-1])

    @property
    def new_classes(self) -> tuple[int, ...]:
        """Return the dataset ids of the classes this step brings, in order."""
        return self.groups[-1]

    @property
    def classes(self) -> tuple[int, ...]:
        """Return the dataset ids of all classes seen so far, in the order of channels 1, 2, ..."""
        return self.previous_classes + self.new_classes

    @property
    def channels(self) -> tuple[int, ...]:
        """Return the output channels of each step's classifier."""
        return classifier_channels(self.groups)


class ModelConfig(Document):
    """Encoder, DeepLabV3 head and the fields that decide what they compute."""

    encoder: Literal["tiny", "mobilenet_v2", "resnet50", "resnet101"] = "resnet101"
    output_stride: Literal[4, 8, 16] = 16
    # sha256 of the encoder's pretrained weights; None starts from random ones.
    weights: str | None = None
    head_channels: int = Field(default=256, ge=1)
    # Pooling window of the head at evaluation, in cells: crop // output_stride.
    eval_pooling: int | None = Field(default=32, ge=1)
    activation: Literal["relu", "leaky_relu"] = "relu"
    # frozen: pretrained statistics, never updated.
    encoder_norm: Literal["batch", "frozen"] = "batch"


def check_output_stride(config: ModelConfig) -> None:
    """Raise InputError for an output stride that the encoder cannot have."""
    possible = (4,) if config.encoder == "tiny" else (8, 16)
    if config.output_stride not in possible:
        choices = " or ".join(map(str, possible))
        raise InputError(
            f"encoder {config.encoder!r} has no output stride {config.output_stride}: "
            f"set model.output_stride to {choices}"
        )


class Optimization(Document):
    """SGD with Nesterov momentum and the poly schedule of the papers."""

    epochs: float = Field(default=30, gt=0)
    batch: int = Field(default=24, ge=2)  # global: all workers together
    encoder_lr: float = Field(default=0.01, ge=0)
    head_lr: float = Field(default=0.01, ge=0)  # head and classifiers
    momentum: float = Field(default=0.9, gt=0, lt=1)
    weight_decay: float = Field(default=1e-4, ge=0)
    poly_power: float = Field(default=0.9, ge=0)
    precision: Literal["float32", "bfloat16", "float64"] = "float32"
    # What stays as the parent step left it: the batch norms' statistics, or the whole encoder.
    frozen: Literal["nothing", "statistics", "encoder"] = Field(
        default="nothing", json_schema_extra={"legacy": "nothing"}
    )


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if not 0 < bounds[0] <= bounds[1]:
        raise InputError("give the smaller bound first, and both above 0")
    return bounds


Bounds = Annotated[tuple[float, float], AfterValidator(_ascending)]


class Augmentation(Document):
    """Random resized crop and horizontal flip, applied to image and mask alike."""

    crop: int = Field(default=512, ge=1)
    scale: Bounds = (0.5, 2.0)  # area fraction, as the papers' code draws it (docs/methods.md)
    ratio: Bounds = (3 / 4, 4 / 3)
    flip: bool = True


class MethodConfig(Document):
    """Base of every method's document.

    The document of method `a-b` is the class `Config` in `training/methods/a_b.py`, by its code.
    """

    name: str
    # Whether it starts from the parent step's model.
    needs_previous: ClassVar[bool] = True
    supervision: ClassVar[Literal["pixel", "image"]] = "pixel"
    # Fewest new classes of a step that keeps no images of earlier ones.
    least_new_classes: ClassVar[int] = 1
    # Whether it trains all groups as one step, without increments: an upper bound.
    all_at_once: ClassVar[bool] = False
    # Whether it needs the weights' importance, which the parent step records.
    needs_importance: ClassVar[bool] = False

    @property
    def records_importance(self) -> bool:
        """Return whether a step publishes how much each weight matters."""
        return self.needs_importance

    @property
    def curvature(self) -> float:
        """Return the largest second derivative, by a weight, of what the method adds to the loss.

        It counts only what is added whatever the images.
        """
        return 0.0

    @property
    def epochs_before_segmentation(self) -> float:
        """Return the epochs in which something else is trained; a step must have more epochs."""
        return 0.0


def read_method(value: Any) -> Any:
    """Read a method's document as the class that its name stands for.

    Args:
        value: The document as a dict, or an object, which is returned as it is.

    Raises:
        InputError: There is no method of that name.
        ValidationError: The document does not fit the method.
    """
    if not isinstance(value, dict):
        return value
    name = str(value.get("name"))
    try:
        module = import_module(f"training.methods.{name.replace('-', '_')}")
    except ModuleNotFoundError:
        raise InputError(
            f"there is no method {name!r}: training/methods has no such file"
        ) from None
    return module.Config.model_validate(value)


AnyMethod = Annotated[SerializeAsAny[MethodConfig], BeforeValidator(read_method)]


class StepConfig(Document):
    """Training one task by one method from one parent."""

    task: Task
    method: AnyMethod
    model: ModelConfig
    optimization: Optimization
    augmentation: Augmentation
    seed: int = Field(default=42, ge=0)
    # It is raised by hand when the code changes what the same document trains.
    recipe: int = 1

    @model_validator(mode="after")
    def _consistent(self) -> "StepConfig":
        method = self.method
        task = self.task
        index = len(self.task.groups) - 1
        if index == 0 and method.needs_previous:
            raise InputError(
                f"step 0 has no previous model, which {method.name!r} needs: train it with "
                "fine-tuning (loss bce before WILSON, cross_entropy before the others)"
            )
        if method.supervision != task.supervision:
            raise InputError(
                f"step {index} has {task.supervision} labels and {method.name!r} learns from "
                f"{method.supervision} labels: change the method, or the scenario's supervision"
            )
        if method.epochs_before_segmentation >= self.optimization.epochs:
            raise InputError(
                f"step {index} ends before its segmentation model learns: {method.name!r} trains "
                f"something else for {method.epochs_before_segmentation:g} of "
                f"{self.optimization.epochs:g} epochs; raise optimization.epochs"
            )
        rate = max(self.optimization.encoder_lr, self.optimization.head_lr)
        momentum = self.optimization.momentum
        # SGD with Nesterov momentum diverges on a parabola when the learning rate times the
        # curvature exceeds this limit.
        limit = 2 * (1 + momentum) / (1 + 2 * momentum)
        if rate * method.curvature > limit:
            raise InputError(
                f"step {index} would diverge: at a learning rate of {rate:g} {method.name!r} pulls "
                "weights back further than they went; lower encoder_lr and head_lr of optimization "
                f"to {limit / method.curvature:.1g}, or method.weight"
            )
        if len(task.new_classes) < method.least_new_classes and task.memory is None:
            raise InputError(
                f"step {index} brings a single class and {method.name!r} learns from image labels: "
                "its localizer needs images without the new class to distinguish it from the rest. "
                "Keep "
                "images of earlier steps (scenario.memory 100), group the class with another one, "
                "or use masks (scenario.supervision pixel)"
            )
        return self


class EvaluationConfig(Document):
    """The pixels on which a published step is scored; no part of a training key."""

    # Resize the shorter side to this; None keeps the original resolution.
    short_side: int | None = Field(default=512, ge=1)
    # Then crop the centre to this square; None keeps the whole image.
    crop: int | None = Field(default=512, ge=1)
