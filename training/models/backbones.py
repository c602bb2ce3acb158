"""From a `ModelConfig` to its encoder.

An encoder maps normalised images [B, 3, H, W] to features [B, channels, h, w] with h = ceil(H / output_stride). It
says how many `channels` it gives and which entries of a pretrained file it leaves `unused`; `stages` gives, beside the
features, the maps at the ends of its stages before activation, from fine to coarse.
"""

from training.config import ModelConfig, check_output_stride
from training.models.mobilenet import MobileNetV2, mobilenet_v2
from training.models.resnet import ResNet, resnet50, resnet101
from training.models.tiny import Tiny, tiny

Encoder = Tiny | MobileNetV2 | ResNet


def build_encoder(config: ModelConfig) -> Encoder:
    """The encoder with random weights; MobileNetV2 keeps its ReLU6 whatever `activation` says.

    Raises InputError for an output stride that the encoder cannot have.
    """
    check_output_stride(config)
    stride, act, frozen = config.output_stride, config.activation, config.encoder_norm == "frozen"
    match config.encoder:
        case "tiny":
            return tiny(act, frozen)
        case "mobilenet_v2":
            return mobilenet_v2(stride, frozen)
        case "resnet50":
            return resnet50(stride, act, frozen)
        case "resnet101":
            return resnet101(stride, act, frozen)
