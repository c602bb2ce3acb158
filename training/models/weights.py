"""Load pretrained encoder weights from a file, by torchvision's names.

Files of the papers' encoders (in-place ABN) are recognised by their names and converted.
"""

from pathlib import Path

from training.config import InputError
from training.models.backbones import Encoder
from training.models.inplace_abn import from_inplace_abn, is_inplace_abn
from training.models.library import load_backbone
from training.models.library_encoder import LibraryEncoder
from training.models.norm import LEAKY_SLOPE
from training.models.resnet import ResNet
from training.models.weight_files import differences, read_tensors


def load_encoder_weights(encoder: Encoder, path: Path) -> None:
    """Copy a file's weights into an encoder, by torchvision's names or those of Transformers.

    A prefix `module.` is dropped. The file's classifier, and what else the encoder lists in
    `unused`, is ignored.

    Args:
        encoder: Its parameters and buffers are overwritten.
        path: The file.

    Raises:
        InputError: The file does not hold weights, its entries do not fit the encoder, or weights
            trained with leaky ReLU meet another activation.
    """
    state = read_tensors(path)
    if isinstance(encoder, LibraryEncoder):
        load_backbone(encoder.library, state, str(path))
        return
    if is_inplace_abn(state):
        _check_activation(encoder, path)
        state = from_inplace_abn(state)
    state = {name: tensor for name, tensor in state.items() if not name.startswith(encoder.unused)}
    problems = differences(encoder.state_dict(), state)
    if problems:
        raise InputError(
            f"{path} does not hold weights of a {type(encoder).__name__}: {problems}; "
            "give the file of this encoder, or none"
        )
    # Not strict, because older files lack the counts of batches.
    encoder.load_state_dict(state, strict=False)


def _check_activation(encoder: Encoder, path: Path) -> None:
    if isinstance(encoder, ResNet) and getattr(encoder.act, "negative_slope", 0) != LEAKY_SLOPE:
        raise InputError(
            f"{path} was trained with leaky ReLU (in-place ABN): set model.activation to leaky_relu"
        )
