"""Load pretrained encoder weights from a file of safetensors or of torch's own format.

The format is read from the file's first bytes, because a cache may name files by digest, without a
suffix. No code is unpickled. Files of the papers' encoders (in-place ABN) are recognised by their
names and converted.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TypeGuard

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from training.config import InputError
from training.models.backbones import Encoder
from training.models.inplace_abn import from_inplace_abn, is_inplace_abn
from training.models.norm import LEAKY_SLOPE
from training.models.resnet import ResNet

# An archive; before torch 1.6, a pickled magic number.
TORCH_STARTS = (b"PK\x03\x04", b"\x80\x02\x8a\n")


def load_encoder_weights(encoder: Encoder, path: Path) -> None:
    """Copy a file's weights into an encoder, by torchvision's names.

    A prefix `module.` is dropped. The file's classifier, and what else the encoder lists in
    `unused`, is ignored.

    Args:
        encoder: Its parameters and buffers are overwritten.
        path: The file.

    Raises:
        InputError: The file does not hold weights, its entries do not fit the encoder, or weights
            trained with leaky ReLU meet another activation.
    """
    state = {name.removeprefix("module."): tensor for name, tensor in _read(path).items()}
    if is_inplace_abn(state):
        _check_activation(encoder, path)
        state = from_inplace_abn(state)
    state = {name: tensor for name, tensor in state.items() if not name.startswith(encoder.unused)}
    problems = _find_problems(encoder.state_dict(), state)
    if problems:
        raise InputError(
            f"{path} does not hold weights of a {type(encoder).__name__}: {'; '.join(problems)}; "
            "give the file of this encoder, or none"
        )
    # Not strict, because older files lack the counts of batches.
    encoder.load_state_dict(state, strict=False)


def is_safetensors(path: Path) -> bool:
    """Return True if the file begins as safetensors do.

    These are the length of the header, 8 bytes, and the header, a JSON object.
    """
    return _first_bytes(path)[8:] == b"{"


def _check_activation(encoder: Encoder, path: Path) -> None:
    if isinstance(encoder, ResNet) and getattr(encoder.act, "negative_slope", 0) != LEAKY_SLOPE:
        raise InputError(
            f"{path} was trained with leaky ReLU (in-place ABN): set model.activation to leaky_relu"
        )


def _find_problems(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Return what differs between the entries of an encoder and those of a file, in words."""
    # Older files do not count batches, and nothing reads the count.
    absent = [name for name in wanted if name not in state]
    missing = [name for name in absent if not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in wanted]
    found = {"missing": missing, "unexpected": unexpected, "misshaped": _misshaped(wanted, state)}
    return [_shorten(kind, names) for kind, names in found.items() if names]


def _misshaped(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Return the entries whose shapes differ, with both shapes."""
    found = []
    for name, tensor in state.items():
        if name in wanted and tensor.shape != wanted[name].shape:
            expected = tuple(wanted[name].shape)
            found.append(f"{name} {tuple(tensor.shape)} instead of {expected}")
    return found


def _shorten(kind: str, names: list[str]) -> str:
    more = ", ..." if len(names) > 3 else ""
    return f"{len(names)} {kind} ({', '.join(names[:3])}{more})"


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(9)


def _read(path: Path) -> dict[str, Tensor]:
    """Return the named tensors of a file."""
    state = None
    try:
        if is_safetensors(path):
            state = load_file(path)
        elif _first_bytes(path).startswith(TORCH_STARTS):
            state = torch.load(path, map_location="cpu", weights_only=True)
            # A checkpoint holds its epoch and the like beside the weights.
            if isinstance(state, dict) and "state_dict" in state:
                state = state["state_dict"]
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise InputError(
            f"{path} is not a readable file of weights: it is broken, or holds more than tensors"
        ) from error
    if not _is_state(state):
        raise InputError(
            f"{path} is not a file of weights: give safetensors, or torch's .pth of named tensors "
            "and nothing else"
        )
    return state


def _is_state(value: object) -> TypeGuard[dict[str, Tensor]]:
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items()
    )
