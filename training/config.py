"""Define the documents that decide a result.

A `training.step_config.StepConfig` holds everything that decides the weights of one incremental
step, and nothing else: no path, no name, no number of workers. Its canonical JSON, with the
parent's key, is the identity of the step (`orchestrator.store.canonical`). Each method has a
document of its own, so that no step has the fields of another method. A field that the method's
other fields switch off stays at its default (`MethodConfig.unused_fields`).

A field with a legacy value is left out of the canonical JSON at that value. Keys made before the
field existed therefore stay valid.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field

from training.backbone import Backbone
from training.class_groups import Background, classifier_channels, flatten_groups
from training.document import Document, InputError

BACKGROUND = 0
VOID = 255
Precision = Literal["float32", "tf32", "bfloat16", "float16", "float64"]


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
    # Whether what the labels do not name is background, or read as void.
    background: Background = Field(default="class", json_schema_extra={"legacy": "class"})
    # Digest of the images kept of earlier steps, and their number.
    memory: str | None = Field(default=None, json_schema_extra={"legacy": None})
    memory_images: int = Field(default=0, ge=0, json_schema_extra={"legacy": 0})
    # Share of the images' pixels that each channel of the step's own classifier has. It is in the
    # document of a step whose classifier starts from it (`BinaryMethodConfig`), and in no other.
    pixel_shares: tuple[float, ...] | None = Field(default=None, json_schema_extra={"legacy": None})

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
        """Return the dataset ids of all classes seen so far, in the order of their channels."""
        return self.previous_classes + self.new_classes

    @property
    def channels(self) -> tuple[int, ...]:
        """Return the output channels of each step's classifier."""
        return classifier_channels(self.groups, self.background)

    @property
    def first_channel(self) -> int:
        """Return the channel of the first class: the one after background, if there is one."""
        return int(self.background == "class")


class ModelConfig(Document):
    """Encoder, DeepLabV3 head and the fields that decide what they compute."""

    encoder: Literal["tiny", "mobilenet_v2", "resnet50", "resnet101", "transformers"] = "resnet101"
    output_stride: Literal[4, 8, 14, 16, 32] = 16
    # sha256 of the encoder's pretrained weights; None starts from random ones.
    weights: str | None = None
    head_channels: int = Field(default=256, ge=1)
    # Pooling window of the head at evaluation, in cells: crop // output_stride.
    eval_pooling: int | None = Field(default=32, ge=1)
    activation: Literal["relu", "leaky_relu"] = "relu"
    # frozen: pretrained statistics, never updated.
    encoder_norm: Literal["batch", "frozen"] = "batch"
    # Which blocks of a ResNet's dilated stage have its dilation: all, as in the papers' code, or
    # those after the first, as in torchvision.
    dilated_blocks: Literal["later", "all"] = Field(
        default="later", json_schema_extra={"legacy": "later"}
    )
    # A 1x1 convolution for each step, or SSUL's: a small network for each step, with background and
    # unknown apart.
    classifier: Literal["pointwise", "ssul"] = Field(
        default="pointwise", json_schema_extra={"legacy": "pointwise"}
    )
    # torchvision: as in its DeepLabV3, whose head has larger dilations and one more convolution.
    # linear: a batch norm alone, so the classifiers read the encoder's features.
    head: Literal["papers", "torchvision", "linear"] = Field(
        default="papers", json_schema_extra={"legacy": "papers"}
    )
    # The encoder `transformers`.
    backbone: Backbone | None = Field(default=None, json_schema_extra={"legacy": None})


class Optimization(Document):
    """SGD with Nesterov momentum and the poly schedule of the papers."""

    epochs: float = Field(default=30, gt=0)
    batch: int = Field(default=24, ge=2)  # global: all workers together
    encoder_lr: float = Field(default=0.01, ge=0)
    head_lr: float = Field(default=0.01, ge=0)  # head and classifiers
    momentum: float = Field(default=0.9, gt=0, lt=1)
    weight_decay: float = Field(default=1e-4, ge=0)
    poly_power: float = Field(default=0.9, ge=0)
    precision: Precision = "float32"
    # What stays as the parent step left it: the batch norms' statistics, the whole encoder, or all
    # but the classifier of the step's own classes.
    frozen: Literal["nothing", "statistics", "encoder", "all_but_newest"] = Field(
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
    # What the code makes of this document, set by the plan. It is raised (`current_recipe`) when a
    # change of the code makes the same document of this method train other weights.
    recipe: int = Field(default=1, ge=1, json_schema_extra={"legacy": 1})
    trains: ClassVar[bool] = True  # else the step's weights were adopted
    # Whether it starts from the parent step's model.
    needs_previous: ClassVar[bool] = True
    supervision: ClassVar[Literal["pixel", "image"]] = "pixel"
    # Fewest new classes of a step that keeps no images of earlier ones.
    least_new_classes: ClassVar[int] = 1
    # Whether it trains all groups as one step, without increments: an upper bound.
    all_at_once: ClassVar[bool] = False
    # Whether it needs the weights' importance, which the parent step records.
    needs_importance: ClassVar[bool] = False
    # Whether it learns from images kept of earlier steps, and cannot do without.
    needs_memory: ClassVar[bool] = False
    # Whether kept images are half of each batch; they are drawn like all others if not.
    halves_batches: ClassVar[bool] = False
    # The classifiers that it trains (`ModelConfig.classifier`); None takes any.
    classifier: ClassVar[Literal["pointwise", "ssul"] | None] = "pointwise"
    # Whether its classifier stood in the softmax of step 0 already.
    needs_reserved: ClassVar[bool] = False
    # The fields that name a companion layer of the dataset, or None. A chain has the layer's name
    # in them. The plan puts the digest of what the step reads of it in the name's place.
    layer_fields: ClassVar[tuple[str, ...]] = ()
    # Whether its layers hold the dataset's class ids, 0 and 255. Other values are refused then.
    layers_hold_classes: ClassVar[bool] = False

    @property
    def layers(self) -> tuple[str, ...]:
        """Return what names the companion layers that the method reads, as its fields have it."""
        named = (getattr(self, field) for field in self.layer_fields)
        return tuple(name for name in named if name is not None)

    def with_layers(self, digests: Mapping[str, str]) -> Self:
        """Return the document with digests in the place of the layers' names."""
        named = {field: getattr(self, field) for field in self.layer_fields}
        update = {field: digests[name] for field, name in named.items() if name is not None}
        return self.model_copy(update=update)

    @property
    def use_of_background(self) -> str:
        """Return what the method does with the background channel, "" if it can do without.

        The words follow its name in the sentence that refuses a scenario without background.
        """
        return "was written for a model with a background channel"

    @property
    def unused_fields(self) -> Mapping[str, str]:
        """Return the fields that other fields switch off, each with the reason in words.

        A plan refuses them unless they have their defaults.
        """
        return {}

    def check_first_step(self) -> None:
        """Raise InputError if the method cannot train step 0, which has no previous model."""
        if self.needs_previous:
            raise InputError(
                f"step 0 has no previous model, which {self.name!r} needs: train it with "
                "fine-tuning (loss bce before WILSON, cross_entropy before the others)"
            )

    def check_later_step(self) -> None:
        """Raise InputError if the document has a field that only step 0 uses."""

    @property
    def current_recipe(self) -> int:
        """Return the recipe of today's code; it may depend on the method's other fields."""
        return 1

    def with_current_recipe(self) -> Self:
        """Return the document as a plan holds it.

        Raise InputError if it has the recipe of another version of the code.
        """
        if self.recipe not in (1, self.current_recipe):
            raise InputError(
                f"method {self.name!r} has recipe {self.recipe}, and this code trains recipe "
                f"{self.current_recipe}: leave the field out, because the plan sets it"
            )
        return self.model_copy(update={"recipe": self.current_recipe})

    @property
    def blind_to_old_labels(self) -> str:
        """Return why labels of previous classes teach it nothing, or "" if they do.

        Kept images bring such labels (`scenario.memory`), and so do masks of all classes seen so
        far (`scenario.labels`). A plan refuses both for a method that gives a reason.
        """
        return ""

    @property
    def records_importance(self) -> bool:
        """Return whether a step publishes how much each weight matters."""
        return self.needs_importance

    @property
    def channels_for_later(self) -> int:
        """Return how many channels a step trains for classes that later steps bring."""
        return 0

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


class EvaluationConfig(Document):
    """The pixels on which a published step is scored; no part of a training key."""

    # Resize the shorter side to this; None keeps the original resolution.
    short_side: int | None = Field(default=512, ge=1)
    # Then crop the centre to this square; None keeps the whole image.
    crop: int | None = Field(default=512, ge=1)
