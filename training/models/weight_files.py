"""Read named tensors from a file of safetensors or of torch's own format, and compare their names.

The format is read from the file's first bytes, because a cache may name files by digest, without a
suffix. No code is unpickled: a file that needs it is refused.
"""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import safe_globals

from training.config import InputError

# An archive; before torch 1.6, a pickled magic number.
TORCH_STARTS = (b"PK\x03\x04", b"\x80\x02\x8a\n")
# Under which a checkpoint keeps the weights, beside its epoch and the like.
NESTED = ("state_dict", "model_state", "model_state_dict", "model")
# Numbers of NumPy, such as the best score so far, that many checkpoints hold beside the tensors.
SCALAR = np.float64(0).__reduce__()[0]
NUMBERS: list[Any] = [
    SCALAR,
    (SCALAR, "numpy.core.multiarray.scalar"),  # as NumPy 1 calls it
    np.dtype,
    *(type(np.dtype(name)) for name in ("float32", "float64", "int64")),
]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the named tensors of a file, without the prefix `module.` of distributed training.

    Of a checkpoint, return the weights in it (`NESTED`).

    Raises:
        InputError: The file holds no weights, or more than tensors and numbers, or it is broken.
    """
    state: object = None
    try:
        if is_safetensors(path):
            state = load_file(path)
        elif _first_bytes(path).startswith(TORCH_STARTS):
            with safe_globals(NUMBERS):
                state = torch.load(path, map_location="cpu", weights_only=True)
            if isinstance(state, dict):
                nested = (state[name] for name in NESTED if isinstance(state.get(name), dict))
                state = next(nested, state)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise _unreadable(path, error) from error
    if not _is_state(state):
        raise InputError(
            f"{path} is not a file of weights: give safetensors, or torch's .pth of named tensors "
            "and nothing else"
        )
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def read_metadata(path: Path) -> dict[str, str]:
    """Return the texts that a file of safetensors holds beside its tensors; none of another file.

    Raises:
        InputError: The file is broken.
    """
    if not path.is_file() or not is_safetensors(path):
        return {}
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        raise _unreadable(path, error) from error


def is_safetensors(path: Path) -> bool:
    """Return True if the file begins as safetensors do.

    These are the length of the header, 8 bytes, and the header, a JSON object.
    """
    return _first_bytes(path)[8:] == b"{"


def differences(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Return in words how the tensors of a file differ from those wanted; nothing if they do not.

    Names and shapes are compared. Older files do not count batches, and nothing reads the count.
    """
    absent = [name for name in wanted if name not in state]
    missing = [name for name in absent if not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in wanted]
    found = {"missing": missing, "unexpected": unexpected, "misshaped": _misshaped(wanted, state)}
    return "; ".join(_shorten(kind, names) for kind, names in found.items() if names)


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


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is not a readable file of weights: {_reason(error)}")


def _reason(error: Exception) -> str:
    """Return why a file was refused, without torch's advice to trust it."""
    if named := re.search(r"Unsupported global: GLOBAL (\S+)", str(error)):
        return (
            f"it holds a {named[1]} besides tensors, which loading would run as code; save the "
            "tensors alone, by torch.save(model.state_dict(), path)"
        )
    return "it is broken, or holds more than tensors"


def _is_state(value: object) -> TypeGuard[dict[str, Tensor]]:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(
            isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items()
        )
    )
