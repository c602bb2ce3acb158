"""Pretrained encoder weights from a file, as safetensors or as torch's own format; never by unpickling code.

The format is read from the file's first bytes: a cache may name files by digest, without a suffix. Files of the papers'
encoders (in-place ABN) are recognised by their names and converted.
"""

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from training.config import InputError
from training.models.backbones import Encoder
from training.models.inplace_abn import from_inplace_abn, is_inplace_abn
from training.models.norm import LEAKY_SLOPE
from training.models.resnet import ResNet

TORCH_STARTS = (
    b"PK\x03\x04",
    b"\x80\x02\x8a\n",
)  # an archive; before torch 1.6, a pickled magic number


def load_encoder_weights(encoder: Encoder, path: Path) -> None:
    """Copy a file's weights into `encoder`, by torchvision's names; a prefix `module.` is dropped.

    The file's classifier, and whatever else the encoder names in `unused`, is ignored. Raises InputError when the file is
    not one of weights, when any other name is missing, left over or of another shape, or when weights made with leaky ReLU
    meet another activation.
    """
    kind = type(encoder).__name__
    state = {name.removeprefix("module."): tensor for name, tensor in _read(path).items()}
    if is_inplace_abn(state):
        state = from_inplace_abn(state)
        if isinstance(encoder, ResNet) and getattr(encoder.act, "negative_slope", 0) != LEAKY_SLOPE:
            raise InputError(
                f"{path} was trained with leaky ReLU (in-place ABN): set model.activation to leaky_relu"
            )
    state = {name: tensor for name, tensor in state.items() if not name.startswith(encoder.unused)}
    wanted = encoder.state_dict()
    # Older files do not count batches; nothing reads the count.
    missing = [
        name for name in wanted if name not in state and not name.endswith("num_batches_tracked")
    ]
    unexpected = [name for name in state if name not in wanted]
    misshaped = [
        f"{name} {tuple(tensor.shape)} instead of {tuple(wanted[name].shape)}"
        for name, tensor in state.items()
        if name in wanted and tensor.shape != wanted[name].shape
    ]
    found = {"missing": missing, "unexpected": unexpected, "misshaped": misshaped}
    wrong = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in found.items()
        if names
    ]
    if wrong:
        raise InputError(
            f"{path} does not hold weights of a {kind}: {'; '.join(wrong)}; give the file of this encoder, or none"
        )
    encoder.load_state_dict(state, strict=False)


def is_safetensors(path: Path) -> bool:
    """Whether the file begins as safetensors do: the length of the header in 8 bytes, and the header, a JSON object."""
    return _start(path)[8:] == b"{"


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(9)


def _read(path: Path) -> dict[str, Tensor]:
    start, state = _start(path), None
    try:
        if is_safetensors(path):
            state = load_file(path)
        elif start.startswith(TORCH_STARTS):
            state = torch.load(path, map_location="cpu", weights_only=True)
            if isinstance(state, dict) and "state_dict" in state:
                state = state[
                    "state_dict"
                ]  # of a checkpoint that also says which epoch it is of, and the like
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise InputError(
            f"{path} is not a readable file of weights: it is broken, or holds more than tensors"
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()
    ):
        raise InputError(
            f"{path} is not a file of weights: give safetensors, or torch's .pth of named tensors and nothing else"
        )
    return state
