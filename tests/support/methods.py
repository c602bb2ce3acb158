"""Build a small step of any method: its document, a random batch and the method in float64."""

from importlib import import_module

import numpy as np
import torch
from torch import Tensor

from training.checkpoint import freeze
from training.config import Augmentation, MethodConfig, ModelConfig, Optimization, Task
from training.methods import base
from training.models.segmenter import Segmenter, normalise, upsample
from training.runtime import Runtime
from training.scenario import label_map, memory_label_map
from training.step_config import StepConfig

MODEL = ModelConfig(encoder="tiny", output_stride=4, head_channels=8, eval_pooling=8)
GROUPS = ((1, 2, 3), (4, 5))
# Iterations during and after WILSON's warm-up.
START = base.Progress(0, 100, 10)
LATER = base.Progress(60, 100, 10)
# The images' classes, as image labels of the classes 1 to 5.
KNOWN = ((0, 0, 0, 1, 0), (0, 0, 0, 0, 1), (0, 0, 0, 1, 1), (0, 0, 0, 1, 0))


def build_step(method: MethodConfig, groups: tuple[tuple[int, ...], ...] = GROUPS) -> StepConfig:
    """Return the document of the last step of `groups`."""
    task = Task(
        data="d",
        groups=groups,
        selection="s",
        images=8,
        supervision=method.supervision,
        memory="m" if method.needs_memory else None,
        memory_images=4 if method.needs_memory else 0,
    )
    return StepConfig(
        task=task,
        method=method,
        model=MODEL.model_copy(update={"classifier": method.classifier or "pointwise"}),
        optimization=Optimization(epochs=10, batch=4, precision="float64"),
        augmentation=Augmentation(crop=32),
    )


def build_batch(document: StepConfig) -> base.Batch:
    """Return four random images; masks, if the step has them, show all classes."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (4, 3, 32, 32), generator=generator, dtype=torch.uint8)
    masks = torch.randint(0, 6, (4, 32, 32), generator=generator)
    targets = None
    if document.task.supervision == "pixel":
        targets = torch.from_numpy(label_map(document.task))[masks].long()
    known = torch.tensor(KNOWN).double()
    kept = None
    if document.task.memory is not None:
        # The last two images are kept of earlier steps.
        kept = torch.tensor([False, False, True, True])
        assert targets is not None
        targets[2:] = torch.from_numpy(memory_label_map(document.task))[masks[2:]].long()
    layers = {
        name: torch.randint(0, 6, (4, 32, 32), generator=generator, dtype=torch.int32)
        for name in document.method.layers
    }
    images = normalise(pixels, torch.float64)
    return base.Batch(pixels, images, targets, known, kept=kept, layers=layers)


def build_method(document: StepConfig) -> base.Method:
    """Return the step's method in training mode.

    In later steps it has a random previous model, and random importance and channels to inherit.
    """
    torch.manual_seed(1)
    previous = None
    inherited = None
    if len(document.task.groups) > 1:
        previous = freeze(Segmenter(document.model, document.task.channels[:-1]).double())
        size = sum(parameter.numel() for parameter in previous.parameters())
        names = ("fisher", "path_integral", "walk")
        inherited = {f"importance.{name}": torch.rand(size).double() for name in names}
        # Channels of two classes beyond the step's own.
        reserved = document.task.channels[-1] + 2
        width = document.model.head_channels
        inherited["reserved.weight"] = torch.randn(reserved, width, 1, 1).double()
        inherited["reserved.bias"] = torch.randn(reserved).double()
    module = import_module(f"training.methods.{document.method.name.replace('-', '_')}")
    method: base.Method = module.Method(document, previous, Runtime().mean, inherited)
    return method.double().train()


def image_logits(method: base.Method, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits of the model and of the previous model at image resolution."""
    size = images.shape[-2:]
    with torch.no_grad():
        now = upsample(method.model(images).logits, size)
        before = upsample(method.previous(images).logits, size)
    return now.numpy(), before.numpy()


def bce(logits: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the binary cross-entropy of each element."""
    return wanted * np.logaddexp(0, -logits) + (1 - wanted) * np.logaddexp(0, logits)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def one_hot(targets: Tensor, channels: int) -> np.ndarray:
    """Return [B, H, W] as [B, channels, H, W]; void is all 0."""
    return np.stack([targets.numpy() == channel for channel in range(channels)], 1).astype(float)
