"""What a WILSON step was taught by: its localizer's map of an image, and the pseudo-supervision made from it.

Both are made anew from published files: the step's model, its localizer, and the parent's model as the previous one. So they
are as they were at the end of training. The image's labels, which training had instead of a mask, are read off the mask here,
as the step would have known them.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from training.checkpoint import load_carried, load_model
from training.config import StepConfig, Task
from training.methods.wilson import Method
from training.models.segmenter import normalise, upsample
from training.pseudo_labels import keep_labelled, pseudo_supervision


class WeakView(NamedTuple):
    """Label maps of one image, uint8 [H, W] of dataset ids."""

    localizer: (
        np.ndarray
    )  # the class that it scores highest, among those that the image's labels allow
    supervision: np.ndarray  # the class with the largest target


def has_localizer(step: StepConfig) -> bool:
    """Whether the step's published files hold a localizer."""
    return step.method.name == "wilson"


def load_method(step: StepConfig, files: Path, parent_files: Path) -> Method:
    """The method of a published WILSON step as it ended, in evaluation mode."""
    model, _ = load_model(files)
    method = Method(step, load_model(parent_files)[0].float())
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
    """What the step makes of an image, uint8 [3, H, W], whose mask is uint8 [H, W] of dataset ids."""
    task, size = method.step.task, pixels.shape[-2:]
    images = normalise(pixels[None])
    labels = known_labels(task, mask)
    before = method.previous_outputs(images).logits
    scores = method.target_scores(method.outputs(images).features, before)
    method.eval()
    target, _ = pseudo_supervision(
        scores, before, labels, method.config.alpha, method.config.background_mix
    )
    ids = torch.tensor((0, *task.classes), dtype=torch.uint8)
    confidence = keep_labelled(scores.softmax(1), labels)
    localizer, supervision = (
        ids[upsample(each, size).argmax(1)[0]].numpy() for each in (confidence, target)
    )
    return WeakView(localizer, supervision)


def known_labels(task: Task, mask: Tensor) -> Tensor:
    """The image labels that the step may know of an image with this mask, float [1, classes learned]."""
    labels = torch.tensor(
        [[bool((mask == class_id).any()) for class_id in task.classes]], dtype=torch.float32
    )
    if task.labels == "new":
        labels[:, : len(task.previous_classes)] = 0
    return labels
