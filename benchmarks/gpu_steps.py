"""Build the steps that the GPU's benchmark and its model run: step 0, MiB and WILSON of 15-5."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch

from training.checkpoint import freeze
from training.config import (
    Augmentation,
    MethodConfig,
    ModelConfig,
    Optimization,
    Precision,
    Task,
)
from training.iteration import method_class, place
from training.losses import Mean, divide
from training.methods import fine_tuning, mib, wilson
from training.methods.base import Batch, Method
from training.models.segmenter import Segmenter, normaliser
from training.precision import DTYPES
from training.step_config import StepConfig

Kind = Literal["base", "mib", "wilson"]
KINDS: tuple[Kind, ...] = get_args(Kind)
GROUPS = (tuple(range(1, 16)), tuple(range(16, 21)))  # VOC's 15-5


@dataclass(frozen=True)
class Sizes:
    """How much a benchmark trains."""

    model: ModelConfig
    crop: int  # pixels
    batch: int
    warm_up: int  # iterations before the clock starts
    iterations: int  # of each measurement
    rounds: int  # measurements of each variant, interleaved
    curve: int  # iterations of the loss curves
    matrix: int  # side of the matrices whose product is timed
    copied: int  # bytes of the copy that is timed


PAPER = Sizes(
    model=ModelConfig(activation="leaky_relu", dilated_blocks="all"),
    crop=512,
    batch=24,
    warm_up=10,
    iterations=20,
    rounds=3,
    curve=50,
    matrix=8192,
    copied=2**30,
)
# Small enough that a CPU trains it beside the GPU.
CURVE = replace(
    PAPER,
    model=ModelConfig(encoder="mobilenet_v2", eval_pooling=8),
    crop=128,
    batch=16,
)
# Sizes for a CPU, which only test the code.
TINY = Sizes(
    model=ModelConfig(encoder="mobilenet_v2", head_channels=16, eval_pooling=2),
    crop=32,
    batch=4,
    warm_up=1,
    iterations=1,
    rounds=1,
    curve=2,
    matrix=64,
    copied=2**16,
)
METHODS: dict[Kind, MethodConfig] = {
    "base": fine_tuning.Config(loss="bce"),
    "mib": mib.Config(),
    "wilson": wilson.Config(warmup_epochs=1),
}


def build_step(
    kind: Kind, sizes: Sizes, precision: Precision, batch: int | None = None
) -> StepConfig:
    """Return the document of a step of 15-5; WILSON's warm-up ends after its first epoch."""
    method = METHODS[kind].with_current_recipe()
    groups = GROUPS if method.needs_previous else GROUPS[:1]
    batch = batch or sizes.batch
    task = Task(
        data="synthetic",
        groups=groups,
        selection="synthetic",
        images=batch,
        supervision=method.supervision,
    )
    return StepConfig(
        task=task,
        method=method,
        model=sizes.model,
        optimization=Optimization(batch=batch, encoder_lr=0.001, precision=precision),
        augmentation=Augmentation(crop=sizes.crop),
    )


def build_method(step: StepConfig, device: torch.device, mean: Mean = divide) -> Method:
    """Return the step's method with random weights, ready to train as `training.fit` has it."""
    torch.manual_seed(step.seed)
    previous = None
    if len(step.task.groups) > 1:
        previous = freeze(Segmenter(step.model, step.task.channels[:-1]))
    return place(method_class(step.method)(step, previous, mean), device)


def build_batch(step: StepConfig, device: torch.device) -> Batch:
    """Return random images of low contrast between neighbours, and labels of the new classes."""
    generator = torch.Generator().manual_seed(0)
    images = step.optimization.batch
    crop = step.augmentation.crop
    small = torch.rand(images, 3, max(2, crop // 16), max(2, crop // 16), generator=generator)
    large = torch.nn.functional.interpolate(small, (crop, crop), mode="bilinear") * 255
    pixels = large.to(torch.uint8).to(device, memory_format=torch.channels_last)
    dtype = DTYPES[step.optimization.precision]
    targets = None
    if step.task.supervision == "pixel":
        shape = (images, crop, crop)
        targets = torch.randint(0, sum(step.task.channels), shape, generator=generator).to(device)
    labels = torch.zeros(images, len(step.task.classes), dtype=dtype)
    labels[:, len(step.task.previous_classes)] = 1
    return Batch(pixels, normaliser(device, dtype)(pixels), targets, labels.to(device))
