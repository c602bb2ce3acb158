"""Build small steps of EWC, PI and RW, whose importance is checked weight by weight."""

from typing import Any

import torch
from torch import Tensor

from training.checkpoint import freeze
from training.config import Augmentation, MethodConfig, ModelConfig, Optimization, Task
from training.methods import base, ewc, fine_tuning, pi, rw
from training.models.segmenter import Segmenter, normalise
from training.step_config import StepConfig

MODEL = ModelConfig(encoder="tiny", output_stride=4, head_channels=4, eval_pooling=8)
METHODS: dict[str, Any] = {"fine-tuning": fine_tuning, "ewc": ewc, "pi": pi, "rw": rw}
MEASURES = {"ewc": ["fisher"], "pi": ["path_integral"], "rw": ["fisher", "walk"]}
PENALTIES = [ewc.Config(weight=3), pi.Config(weight=3), rw.Config(weight=3)]


def build_step(
    method: MethodConfig,
    groups: tuple[tuple[int, ...], ...] = ((1, 2), (3,)),
    **optimization: float,
) -> StepConfig:
    """Return the document of the last step of `groups`."""
    task = Task(data="d", groups=groups, selection="s", images=8, supervision="pixel")
    settings = {"batch": 2, "precision": "float64", "encoder_lr": 0.01, "head_lr": 0.01}
    return StepConfig(
        task=task,
        method=method,
        model=MODEL,
        optimization=Optimization.model_validate(settings | optimization),
        augmentation=Augmentation(crop=16),
    )


def build_method(document: StepConfig, inherited: dict[str, Tensor] | None = None) -> base.Method:
    """Return the step's method in float64, with a random previous model in later steps."""
    torch.manual_seed(3)
    previous = None
    if len(document.task.groups) > 1:
        previous = freeze(Segmenter(MODEL, document.task.channels[:-1]).double())
    module = METHODS[document.method.name]
    method: base.Method = module.Method(document, previous, inherited=inherited)
    return method.double().train()


def build_batch(number: int) -> base.Batch:
    """Return two random images and masks; the number is the seed."""
    generator = torch.Generator().manual_seed(number)
    pixels = torch.randint(0, 256, (2, 3, 16, 16), generator=generator, dtype=torch.uint8)
    targets = torch.randint(0, 3, (2, 16, 16), generator=generator)
    return base.Batch(pixels, normalise(pixels, torch.float64), targets, torch.zeros(2, 3))


def previous_size() -> int:
    """Return the number of weights of the previous model."""
    return sum(parameter.numel() for parameter in Segmenter(MODEL, (3,)).parameters())


def random_importance() -> dict[str, Tensor]:
    """Return importance as a parent step would publish it."""
    size = previous_size()
    generator = torch.Generator().manual_seed(5)
    vectors: dict[str, Tensor] = {}
    for name in ("fisher", "path_integral", "walk"):
        vector = torch.rand(size, generator=generator, dtype=torch.float64)
        vectors[f"importance.{name}"] = 5 * vector
    return vectors
