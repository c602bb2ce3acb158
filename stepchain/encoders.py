"""Describe encoders of the library Transformers for chains."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from orchestrator.datasets.library_folder import LibraryFolder, backbone_of, open_library_folder
from training.config import ModelConfig
from training.models.library_encoder import layout_of


def library_model(
    source: str | Path | Mapping[str, Any], *, maps: Sequence[str] = (), **fields: Any
) -> ModelConfig:
    """Return the model on an encoder of Transformers, with every value that decides its numbers.

    Its weights are random until `--encoder-weights` names a folder of the same encoder.

    Args:
        source: A folder with the library's config.json, its URI, or hf://OWNER/NAME; or the
            library's configuration as a dict, `{"model_type": "swin", "embed_dim": 96}`, whose
            other values are the library's defaults.
        maps: Names of the maps that the head reads; by default the last.
        fields: Other fields of the `ModelConfig`. The output stride follows from the maps.

    Raises:
        InputError: There is no such folder, or the library has no such encoder or map.
    """
    if isinstance(source, Mapping):
        folder = LibraryFolder("the configuration", dict(source), {})
    else:
        with TemporaryDirectory(prefix="stepchain-") as scratch:
            folder = open_library_folder(str(source), Path(scratch))
    backbone = backbone_of(folder, tuple(maps) or None)
    layout = layout_of(backbone)
    if fields.get("head") == "linear":
        fields = {"head_channels": layout.channels, "eval_pooling": None} | fields
    own = {"encoder": "transformers", "backbone": backbone, "output_stride": layout.stride}
    return ModelConfig.model_validate(own | fields)
