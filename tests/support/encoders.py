"""Encoders of the library Transformers that are small enough for tests."""

from functools import cache
from typing import Any

from training.backbone import Backbone
from training.config import ModelConfig
from training.models.library import complete_architecture

WIDTHS: dict[str, Any] = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]}
SMALL: dict[str, dict[str, Any]] = {
    "dinov2": {
        "hidden_size": 16,
        "num_hidden_layers": 6,
        "num_attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
    },
    "dinov3_vit": {
        "hidden_size": 16,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "num_register_tokens": 2,
        "patch_size": 16,
    },
    "swin": {
        "embed_dim": 8,
        "depths": [1, 1, 2, 1],
        "num_heads": [1, 2, 2, 4],
        "image_size": 64,
        "window_size": 4,
    },
    "convnextv2": WIDTHS,
    "pvt_v2": WIDTHS | {"num_attention_heads": [1, 2, 3, 4]},
}


@cache
def small_backbone(kind: str, *maps: str) -> Backbone:
    """Return a small encoder of that architecture; by default the head reads its last map."""
    architecture = complete_architecture({"model_type": kind} | SMALL[kind])
    last = f"stage{SMALL[kind].get('num_hidden_layers', 4)}"
    return Backbone(architecture=architecture, maps=maps or (last,))


def small_model(kind: str, *maps: str, **fields: Any) -> ModelConfig:
    """Return a model on `small_backbone`, with other fields as given."""
    stride = {"dinov2": 14, "dinov3_vit": 16}.get(kind, 32)
    start: dict[str, Any] = {"output_stride": stride, "head_channels": 8, "eval_pooling": None}
    return ModelConfig(
        encoder="transformers", backbone=small_backbone(kind, *maps), **(start | fields)
    )
