"""Compare the weights of two published folders, bit by bit and by their values."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from orchestrator.records.reproduction import WeightDifference


def compare_weights(first: Path, second: Path) -> WeightDifference:
    """Compare all safetensors of two folders.

    Raises:
        ValueError: The folders hold other tensors, or tensors of other shapes or types.
    """
    before, after = _load(first), _load(second)
    if _kinds(before) != _kinds(after):
        raise ValueError(f"{first} and {second} do not hold the same tensors")
    differing = [name for name in before if not _same_bits(before[name], after[name])]
    sizes = {name: _largest(before[name], after[name]) for name in differing}
    where = max(sizes, key=lambda name: sizes[name], default=None)
    return WeightDifference(
        tensors=len(before),
        differing=len(differing),
        largest=sizes[where] if where else 0.0,
        where=where,
        scale=before[where].double().square().mean().sqrt().item() if where else 0.0,
    )


def _load(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a folder by the file's name and their own."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= {f"{path.stem}: {name}": tensor for name, tensor in load_file(path).items()}
    return found


def _kinds(tensors: dict[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (each.shape, each.dtype) for name, each in tensors.items()}


def _same_bits(first: Tensor, second: Tensor) -> bool:
    return torch.equal(first.reshape(-1).view(torch.uint8), second.reshape(-1).view(torch.uint8))


def _largest(first: Tensor, second: Tensor) -> float:
    return (first.double() - second.double()).abs().max().item()
