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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import SGD

from training.class_groups import Background, classifier_channels, flatten_groups
from training.config import Document, ModelConfig
from training.curves import CurveRow
from training.methods.base import Method
from training.models.library_probe import check_features, probe_features
from training.models.segmenter import Segmenter


class ModelDocument(Document):
    """The document that rebuilds a published model: architecture and dataset ids of its classes."""

    format: int = 1
    model: ModelConfig
    groups: tuple[tuple[int, ...], ...]
    background: Background = "class"
    # What an encoder of Transformers computed of a fixed picture (`training.models.library_probe`).
    features: tuple[float, ...] | None = None

    @property
    def channels(self) -> tuple[int, ...]:
        """Return the number of output channels of each classifier."""
        return classifier_channels(self.groups, self.background)

    @property
    def class_ids(self) -> tuple[int, ...]:
        """Return the dataset id of each output channel; background, if it has one, is 0."""
        classes = flatten_groups(self.groups)
        return (0, *classes) if self.background == "class" else classes


@dataclass(frozen=True)
class Snapshot:
    """A copy of a training's complete state, which another thread may write while training goes on.

    Data order and augmentation depend on the iteration only.
    """

    iteration: int  # iterations that are done
    curves: list[CurveRow]
    method: dict[str, Tensor]
    momentum: dict[str, Tensor]
    copied: torch.cuda.Event | None  # that a GPU records when the copies are complete
    scaler: dict[str, Any]  # of the gradients of float16; empty in other precisions

    def write(self, folder: Path) -> None:
        """Write the files of a checkpoint."""
        if self.copied is not None:
            self.copied.synchronize()
        folder.mkdir(parents=True, exist_ok=True)
        _save_tensors(folder / "method.safetensors", self.method)
        _save_tensors(folder / "momentum.safetensors", self.momentum)
        state = {"iteration": self.iteration, "curves": self.curves, "scaler": self.scaler}
        (folder / "state.json").write_text(json.dumps(state))


def take_snapshot(
    method: Method,
    optimizer: SGD,
    scaler: GradScaler,
    iteration: int,
    curves: list[CurveRow],
) -> Snapshot:
    """Copy the complete state after `iteration` iterations.

    The host waits for a GPU only in float16, whose scale it reads.
    """
    momentum = {
        name: _copy(optimizer.state[parameter]["momentum_buffer"])
        for name, parameter in method.named_parameters()
        if "momentum_buffer" in optimizer.state[parameter]
    }
    state = {name: _copy(value) for name, value in method.state_dict().items()}
    copied = None
    if any(value.is_pinned() for value in state.values()):
        copied = torch.cuda.Event()
        copied.record()
    return Snapshot(iteration, list(curves), state, momentum, copied, scaler.state_dict())


def load_checkpoint(
    folder: Path, method: Method, optimizer: SGD, scaler: GradScaler
) -> tuple[int, list[CurveRow]]:
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
    # Checkpoints from before float16 was offered have none.
    scaler.load_state_dict(state.get("scaler", {}))
    return state["iteration"], state["curves"]


def save_model(folder: Path, method: Method, curves: list[CurveRow]) -> None:
    """Write the files that a step publishes."""
    document = ModelDocument(
        model=method.step.model,
        groups=method.step.task.groups,
        background=method.step.task.background,
    )
    save_model_files(folder, document, method.model.state_dict(), method.carried(), curves)


def save_model_files(
    folder: Path,
    document: ModelDocument,
    model: dict[str, Tensor],
    carried: dict[str, Tensor],
    curves: list[CurveRow],
) -> None:
    """Write the files of a published step: its document, weights, carried state and curves."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").write_text(document.model_dump_json(indent=1))
    _save_tensors(folder / "model.safetensors", model)
    if document.model.backbone is not None:
        # Of the files, as they will be loaded.
        features = probe_features(load_model(folder)[0])
        document = document.model_copy(update={"features": features})
        (folder / "model.json").write_text(document.model_dump_json(indent=1))
    if carried:
        _save_tensors(folder / "state.safetensors", carried)
    (folder / "curves.json").write_text(json.dumps(curves))


def load_model(folder: Path) -> tuple[Segmenter, ModelDocument]:
    """Return a folder's published model, frozen and in evaluation mode, in its saved precision."""
    document = ModelDocument.model_validate_json((folder / "model.json").read_text())
    weights = load_file(folder / "model.safetensors")
    model = Segmenter(document.model, document.channels)
    model.to(next(value.dtype for value in weights.values() if value.is_floating_point()))
    model.load_state_dict(weights)
    freeze(model)
    check_features(model, document.features)
    return model, document


def load_carried(folder: Path) -> dict[str, Tensor]:
    """Return the state that the method of a published folder hands to the next step, by name."""
    path = folder / "state.safetensors"
    return load_file(path) if path.exists() else {}


def freeze(model: Segmenter) -> Segmenter:
    """Put the model into evaluation mode, without gradients, and return it."""
    return model.eval().requires_grad_(False)


def _copy(value: Tensor) -> Tensor:
    """Return a copy in the CPU's memory; a GPU writes it later, to pinned memory."""
    value = value.detach()
    if not value.is_cuda:
        return value.clone()
    # The GPU is faster at this than the CPU.
    value = value.contiguous()
    return torch.empty_like(value, device="cpu", pin_memory=True).copy_(value, non_blocking=True)


def _save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path)
