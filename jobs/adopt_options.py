"""Define the options of `jobs.adopt`."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tyro

from jobs.options import StoreOptions
from training.config import ModelConfig

TORCHVISION = ModelConfig(
    encoder="resnet50", output_stride=8, eval_pooling=None, head="torchvision"
)


@dataclass(frozen=True)
class ModelOptions:
    """What the weights do not say. What is left out comes from the preset."""

    encoder: Literal["tiny", "mobilenet_v2", "resnet50", "resnet101"] | None = None
    """By default what the weights' names say."""
    output_stride: Literal[4, 8, 16] | None = None
    """Pixels of the photo per cell of the map that is classified."""
    dilated_blocks: Literal["later", "all"] | None = None
    """Blocks of a ResNet's dilated stage that are dilated: all, as in the papers' code, or later
    ones, as in torchvision."""
    eval_pooling: int | Literal["whole"] | None = None
    """Side of the head's pooling window at evaluation, in cells, or the whole map."""
    activation: Literal["relu", "leaky_relu"] | None = None
    """After each norm."""
    encoder_norm: Literal["batch", "frozen"] | None = None
    """Frozen keeps the encoder's statistics in later steps."""

    @property
    def fields(self) -> dict[str, Any]:
        """Return the fields of a ModelConfig that are given."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        if self.eval_pooling == "whole":
            given["eval_pooling"] = None
        return given


@dataclass(frozen=True)
class Options(StoreOptions):
    """Everything but the weights."""

    name: str = ""
    """How the model is called: a chain of this name, whose only step it is."""
    classes: str | None = None
    """Its classes in the order of its channels, without background: a,b,c or a file of names; by
    default those that an exported file names."""
    dataset: str | None = None
    """Dataset that has these classes: increments are trained on it, and it gives the scores; by
    default the only one of the store that has them."""
    preset: str | None = None
    """Preset with the model it was trained with, such as voc_wilson, or torchvision."""
    model: ModelOptions = field(default_factory=ModelOptions)
    norm: Literal["in_place", "plain"] | None = None
    """Norms of the papers' code: in-place ABN, whose scale is |weight| + 1e-5, or plain ones; by
    default plain only if the file counts batches."""
    short_side: int | Literal["original"] | None = None
    """Resize the shorter side of images to this for scoring; by default as the preset does."""
    crop: int | Literal["none"] | None = None
    """Then crop the centre to this square; by default as the preset does."""
    origin: Annotated[str, tyro.conf.arg(name="from")] = ""
    """Where it comes from, in words or as an address; the record shows it."""
    score: bool = True
    """Score it now, in this process, on its GPU if it has one."""
    tracking: bool = True
    """Show it in MLflow."""
    tracking_uri: str | None = None
    """MLflow's address; by default $MLFLOW_TRACKING_URI or a database file in the store."""
