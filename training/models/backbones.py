"""Build the encoder that a `ModelConfig` describes.

An encoder maps normalised images [B, 3, H, W] to features [B, channels, h, w], where
h = ceil(H / output_stride). All encoders have
    channels        of the features
    unused          prefixes of the entries that a pretrained file holds besides the encoder
    parts()         modules that compute the features when run one after another; of an encoder of
                    Transformers `training.models.library_parts.parts_of` returns them
    stages(images)  the features, and the maps at the ends of the stages before their activation,
                    from fine to coarse
"""

from training.config import ModelConfig
from training.encoder_check import check_encoder
from training.models.library_encoder import LibraryEncoder
from training.models.mobilenet import MobileNetV2, mobilenet_v2
from training.models.resnet import ResNet, resnet50, resnet101
from training.models.tiny import Tiny, tiny

Encoder = Tiny | MobileNetV2 | ResNet | LibraryEncoder


def build_encoder(config: ModelConfig) -> Encoder:
    """Return the encoder with random weights; MobileNetV2 keeps its ReLU6 whatever `activation` is.

    Raises:
        InputError: The encoder does not go with the model's other fields.
    """
    check_encoder(config)
    if config.backbone is not None:
        return LibraryEncoder(config.backbone)
    stride = config.output_stride
    act = config.activation
    frozen = config.encoder_norm == "frozen"
    match config.encoder:
        case "tiny":
            return tiny(act, frozen)
        case "mobilenet_v2":
            return mobilenet_v2(stride, frozen)
        case "resnet50":
            return resnet50(stride, act, frozen, config.dilated_blocks)
        case _:
            return resnet101(stride, act, frozen, config.dilated_blocks)
