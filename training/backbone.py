"""Define the document of an encoder that the library Transformers (Hugging Face) computes.

The document names what decides the numbers: the library's own configuration as values, the maps
that are read, and how images are normalised. `training.models.library_encoder` builds the encoder.
"""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from training.document import Document, InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB, of values in 0..1
IMAGENET_STD = (0.229, 0.224, 0.225)
Triple = tuple[float, float, float]

# Fields of the library's configurations that decide no number here. The encoder always runs in
# evaluation mode, so dropout and what else is drawn in training are among them.
UNDECISIVE = frozenset(
    {
        "_name_or_path",
        "add_cross_attention",
        "architectures",
        "attn_implementation",
        "auto_map",
        "chunk_size_feed_forward",
        "dtype",
        "finetuning_task",
        "id2label",
        "is_decoder",
        "is_encoder_decoder",
        "label2id",
        "num_labels",
        "out_features",
        "out_indices",
        "output_attentions",
        "output_hidden_states",
        "pos_embed_jitter",
        "pos_embed_rescale",
        "pos_embed_shift",
        "problem_type",
        "pruned_heads",
        "return_class_token",
        "return_dict",
        "stage_names",
        "torch_dtype",
        "transformers_version",
        "use_cache",
        "use_return_dict",
    }
)


def decisive(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a library's configuration that decide what an encoder computes.

    An entry may be a configuration itself, whose entries are chosen likewise.
    """
    return {
        name: decisive(value) if isinstance(value, Mapping) else value
        for name, value in sorted(values.items())
        if name not in UNDECISIVE and "drop" not in name
    }


class Backbone(Document):
    """What decides the features of an encoder of Transformers, besides its weights.

    `stepchain.library_model` makes it from a folder, a name of the hub, or the library's defaults.
    """

    # The library's configuration, complete: `model_type`, and every value that decides a number.
    architecture: dict[str, Any]
    # The maps that the head reads, by the library's names (`stage4`), from early to late. Several
    # are brought to the finest one's resolution and concatenated.
    maps: tuple[str, ...] = Field(min_length=1)
    # How the encoder's images are normalised.
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD

    @field_validator("architecture")
    @classmethod
    def _values(cls, architecture: dict[str, Any]) -> dict[str, Any]:
        if "model_type" not in architecture:
            raise InputError("an architecture needs a model_type, such as swin or dinov2")
        undecisive = sorted(set(architecture) - set(decisive(architecture)))
        if undecisive:
            raise InputError(
                f"the architecture names {', '.join(undecisive)}, which decides no number here "
                "(dropout and the like are off): leave it out"
            )
        try:
            # As JSON has them: lists, not tuples.
            return json.loads(json.dumps(architecture, sort_keys=True, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise InputError(f"an architecture holds JSON's values only: {error}") from error

    @field_validator("std")
    @classmethod
    def _above_0(cls, std: Triple) -> Triple:
        if min(std) <= 0:
            raise InputError("deviations of colours are above 0")
        return std

    @property
    def kind(self) -> str:
        """Return the library's name of the architecture, such as `swin`."""
        return str(self.architecture["model_type"])

    def __hash__(self) -> int:
        """Return equal numbers for equal documents, which a dict in one would not."""
        return hash(self.model_dump_json())
