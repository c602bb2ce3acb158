"""Name every value of the encoders of Transformers that presets have.

They are that library's defaults where the published configuration says nothing. Written out, they
stay what they are with another version of the library.
"""

from typing import Any

# microsoft/swin-base-patch4-window7-224-in22k, 87 M parameters
SWIN_BASE: dict[str, Any] = {
    "depths": [2, 2, 18, 2],
    "embed_dim": 128,
    "encoder_stride": 32,
    "hidden_act": "gelu",
    "hidden_size": 1024,
    "image_size": 224,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-05,
    "mlp_ratio": 4.0,
    "model_type": "swin",
    "num_channels": 3,
    "num_heads": [4, 8, 16, 32],
    "num_layers": 4,
    "patch_size": 4,
    "qkv_bias": True,
    "use_absolute_embeddings": False,
    "window_size": 7,
}

# facebook/dinov2-base, 86 M parameters
DINOV2_BASE: dict[str, Any] = {
    "apply_layernorm": True,
    "hidden_act": "gelu",
    "hidden_size": 768,
    "image_size": 518,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-06,
    "layerscale_value": 1.0,
    "mlp_ratio": 4,
    "model_type": "dinov2",
    "num_attention_heads": 12,
    "num_channels": 3,
    "num_hidden_layers": 12,
    "patch_size": 14,
    "qkv_bias": True,
    "reshape_hidden_states": True,
    "use_mask_token": True,
    "use_swiglu_ffn": False,
}

# no published one: two stages, for scenes of 64 pixels
DIGITS_SWIN: dict[str, Any] = {
    "depths": [2, 2],
    "embed_dim": 32,
    "encoder_stride": 32,
    "hidden_act": "gelu",
    "hidden_size": 64,
    "image_size": 64,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-05,
    "mlp_ratio": 2.0,
    "model_type": "swin",
    "num_channels": 3,
    "num_heads": [2, 4],
    "num_layers": 2,
    "patch_size": 4,
    "qkv_bias": True,
    "use_absolute_embeddings": False,
    "window_size": 4,
}
