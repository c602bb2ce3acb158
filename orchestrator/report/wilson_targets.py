"""Compute the targets of a WILSON step: its localizer's map and the pseudo-supervision from it.

Both follow from published files: the model of the step, its localizer, and the parent's model as
the previous one, which step 0 does without. They are as they were at the end of training. Training
had image labels instead of masks. Here the labels are read off the mask, as far as the step could
know them.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from orchestrator.report.pictures import WeakView
from training.checkpoint import load_carried, load_model
from training.config import Task
from training.methods.base import no_logits
from training.methods.wilson import Method
from training.models.segmenter import normalise, upsample
from training.pseudo_labels import keep_labelled, pseudo_supervision
from training.step_config import StepConfig


def has_localizer(step: StepConfig) -> bool:
    """Return whether the published files of the step hold a localizer."""
    return step.method.name == "wilson"


def load_method(step: StepConfig, files: Path, parent_files: Path | None) -> Method:
    """Return the method of a published WILSON step as training ended, in evaluation mode.

    Args:
        step: The step.
        files: Folder of its published files.
        parent_files: Folder of the published files of its parent; None in step 0.
    """
    model, _ = load_model(files)
    previous = load_model(parent_files)[0].float() if parent_files else None
    method = Method(step, previous)
    method.model.load_state_dict(model.state_dict())
    prefix = "localizer."
    carried = {
        name.removeprefix(prefix): value
        for name, value in load_carried(files).items()
        if name.startswith(prefix)
    }
    method.localizer.load_state_dict(carried)
    return method.eval()


@torch.no_grad()
def weak_view(method: Method, pixels: Tensor, mask: Tensor) -> WeakView:
    """Return the targets of the step on one image.

    Args:
        method: The method of the step, as `load_method` returns it.
        pixels: The image, uint8 [3, H, W].
        mask: Its true classes, uint8 [H, W] of dataset class ids.
    """
    task = method.step.task
    size = pixels.shape[-2:]
    images = normalise(pixels[None])
    labels = known_labels(task, mask)
    features = method.outputs(images).features
    before = no_logits(features) if method.is_first else method.previous_outputs(images).logits
    scores = method.scores(features, before)
    config = method.config
    target, _ = pseudo_supervision(
        scores,
        before,
        labels,
        config.alpha,
        config.background_mix,
        config.yield_to_previous,
        config.new_class_odds,
    )
    ids = torch.tensor((0, *task.classes), dtype=torch.uint8)
    confidence = keep_labelled(scores.softmax(1), labels)
    return WeakView(_likeliest(confidence, ids, size), _likeliest(target, ids, size))


def _likeliest(scores: Tensor, ids: Tensor, size: torch.Size) -> np.ndarray:
    """Return the dataset id of the highest score of each pixel, at the size of the image."""
    return ids[upsample(scores, size).argmax(1)[0]].numpy()


def known_labels(task: Task, mask: Tensor) -> Tensor:
    """Return the image labels that the step may know of an image, float [1, classes learned].

    Args:
        task: What the step sees of its scenario.
        mask: True classes of the image, uint8 [H, W] of dataset class ids.
    """
    present = [bool((mask == class_id).any()) for class_id in task.classes]
    labels = torch.tensor([present], dtype=torch.float32)
    if task.labels == "new":
        labels[:, : len(task.previous_classes)] = 0
    return labels
