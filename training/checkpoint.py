"""Read and write the files of a step: checkpoints to resume from, and the published model.

A published model can be rebuilt from its folder alone. Weights are safetensors; nothing is pickled.
A published folder holds

    model.json           ModelDocument: architecture and class groups
    model.safetensors    the segmenter
    state.safetensors    the state that the method hands to the next step, if there is any
    curves.json          the training curves, a list of rows (see training.journal)

and a checkpoint folder `method.safetensors`, `momentum.safetensors` and `state.json`.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import SGD

from training.config import Document, ModelConfig, classifier_channels, flatten_groups
from training.curves import CurveRow
from training.methods.base import Method
from training.models.segmenter import Segmenter


class ModelDocument(Document):
    """The document that rebuilds a published model: architecture and dataset ids of its classes."""

    format: int = 1
    model: ModelConfig
    groups: tuple[tuple[int, ...], ...]

    @property
    def channels(self) -> tuple[int, ...]:
        """Return the number of output channels of each classifier."""
        return classifier_channels(self.groups)

    @property
    def class_ids(self) -> tuple[int, ...]:
        """Return the dataset id of each output channel; background is 0."""
        return (0, *flatten_groups(self.groups))


def save_checkpoint(
    folder: Path, method: Method, optimizer: SGD, iteration: int, curves: list[CurveRow]
) -> None:
    """Write the complete state after `iteration` iterations.

    Data order and augmentation depend on the iteration only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    momentum = {
        name: optimizer.state[parameter]["momentum_buffer"]
        for name, parameter in method.named_parameters()
        if "momentum_buffer" in optimizer.state[parameter]
    }
    _save_tensors(folder / "method.safetensors", method.state_dict())
    _save_tensors(folder / "momentum.safetensors", momentum)
    (folder / "state.json").write_text(json.dumps({"iteration": iteration, "curves": curves}))


def load_checkpoint(folder: Path, method: Method, optimizer: SGD) -> tuple[int, list[CurveRow]]:
    """Restore a checkpoint in place; return the iterations done and the curves so far."""
    method.load_state_dict(load_file(folder / "method.safetensors"))
    momentum = load_file(folder / "momentum.safetensors")
    for name, parameter in method.named_parameters():
        if name in momentum:
            buffer = torch.empty_like(parameter, memory_format=torch.preserve_format).copy_(
                momentum[name]
            )
            optimizer.state[parameter]["momentum_buffer"] = buffer
    state: dict[str, Any] = json.loads((folder / "state.json").read_text())
    return state["iteration"], state["curves"]


def save_model(folder: Path, method: Method, curves: list[CurveRow]) -> None:
    """Write the files that a step publishes."""
    folder.mkdir(parents=True, exist_ok=True)
    document = ModelDocument(model=method.step.model, groups=method.step.task.groups)
    (folder / "model.json").write_text(document.model_dump_json(indent=1))
    _save_tensors(folder / "model.safetensors", method.model.state_dict())
    if carried := method.carried():
        _save_tensors(folder / "state.safetensors", carried)
    (folder / "curves.json").write_text(json.dumps(curves))


def load_model(folder: Path) -> tuple[Segmenter, ModelDocument]:
    """Return a folder's published model, frozen and in evaluation mode, in its saved precision."""
    document = ModelDocument.model_validate_json((folder / "model.json").read_text())
    weights = load_file(folder / "model.safetensors")
    model = Segmenter(document.model, document.channels)
    model.to(next(value.dtype for value in weights.values() if value.is_floating_point()))
    model.load_state_dict(weights)
    return freeze(model), document


def load_carried(folder: Path) -> dict[str, Tensor]:
    """Return the state that the method of a published folder hands to the next step, by name."""
    path = folder / "state.safetensors"
    return load_file(path) if path.exists() else {}


def freeze(model: Segmenter) -> Segmenter:
    """Put the model into evaluation mode, without gradients, and return it."""
    return model.eval().requires_grad_(False)


def _save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path)
