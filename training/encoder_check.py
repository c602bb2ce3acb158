"""Check what a model's document says of its encoder, before anything is built."""

from training.config import InputError, ModelConfig


def check_encoder(config: ModelConfig) -> None:
    """Raise InputError for fields that do not go with the encoder, or with each other."""
    if config.head == "linear" and config.eval_pooling is not None:
        raise InputError("a linear head pools nothing: set model.eval_pooling to none")
    if config.encoder == "transformers":
        # It imports that library.
        from training.models.library_encoder import check_library_encoder

        return check_library_encoder(config)
    if config.backbone is not None:
        raise InputError(
            f"encoder {config.encoder!r} has no model.backbone: set model.encoder to transformers"
        )
    possible = (4,) if config.encoder == "tiny" else (8, 16)
    if config.output_stride not in possible:
        choices = " or ".join(map(str, possible))
        raise InputError(
            f"encoder {config.encoder!r} has no output stride {config.output_stride}: "
            f"set model.output_stride to {choices}"
        )
    if config.dilated_blocks == "all" and not config.encoder.startswith("resnet"):
        raise InputError(
            f"encoder {config.encoder!r} has no choice of dilated blocks, which only ResNets have: "
            "set model.dilated_blocks to later"
        )
    return None
