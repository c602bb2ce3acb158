"""Check the memory estimate against counted tensors, and against what a CPU process takes."""

import subprocess
import sys
from typing import Any

import pytest
import torch

from tests.support.methods import build_step
from training.config import (
    Augmentation,
    InputError,
    MethodConfig,
    ModelConfig,
    Optimization,
    Precision,
    Task,
)
from training.memory_estimate import META, LiveMemory, check_fits, estimate_memory
from training.methods import dft, ewc, ewf, fine_tuning, mib, mib_augm, offline, plop, ssul, wilson
from training.step_config import StepConfig

GIGABYTE = 1e9
PAPER = ModelConfig(activation="leaky_relu")
SMALL = ModelConfig(encoder="mobilenet_v2")
# A step on a CPU, in a process of its own: the most memory that its iterations add, in bytes.
MEASURE = """
import pathlib, torch
from tests.unit.training.test_memory_estimate import small_step
from training.iteration import build_optimizer, method_class, place
from training.methods.base import Batch, Progress
from training.checkpoint import freeze
from training.models.segmenter import Segmenter, normalise
def used():
    # Not getrusage: its maximum starts at what the process that started this one had.
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
torch.set_num_threads(1)
step = small_step()
previous = freeze(Segmenter(step.model, step.task.channels[:-1]))
method = place(method_class(step.method)(step, previous), torch.device("cpu"))
optimizer = build_optimizer(method, torch.device("cpu"))
before = used()
pixels = torch.randint(0, 256, (16, 128, 128, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
masks = torch.randint(0, 6, (16, 128, 128))
batch = Batch(pixels, normalise(pixels), masks, torch.zeros(16, 8))
for iteration in range(2):
    optimizer.zero_grad()
    torch.stack(list(method(batch, Progress(900, 1000, 20)).values())).sum().backward()
    optimizer.step()
print(used() - before)
"""


def step(method: MethodConfig, model: ModelConfig = PAPER, **changes: Any) -> StepConfig:
    """Return a step of 15-5 at the papers' sizes, or its step 0."""
    groups = (tuple(range(1, 16)), tuple(range(16, 21)))
    groups = groups if method.needs_previous else groups[:1]
    supervision = method.supervision
    task = Task(data="d", groups=groups, selection="s", images=2000, supervision=supervision)
    crop = changes.pop("crop", 512)
    return StepConfig(
        task=task,
        method=method,
        model=model,
        optimization=Optimization(**{"batch": 24, "precision": "bfloat16"} | changes),
        augmentation=Augmentation(crop=crop),
    )


def small_step() -> StepConfig:
    """Return MiB on MobileNetV2 at sizes for a CPU."""
    return step(mib.Config(), SMALL, crop=128, batch=16, precision="float32")


@pytest.mark.parametrize(
    ("config", "precision", "saved"),
    [
        (wilson.Config(), "bfloat16", 9.6),
        (wilson.Config(), "float32", 17.9),
        (fine_tuning.Config(loss="bce"), "bfloat16", 9.8),
    ],
)
def test_resnet101_saves_what_was_counted_before(
    config: MethodConfig, precision: Precision, saved: float
) -> None:
    """The numbers were counted by running the methods on fake tensors of a CPU under autocast."""
    estimate = estimate_memory(step(config, precision=precision))
    assert estimate.saved / GIGABYTE == pytest.approx(saved, rel=0.05)
    assert estimate.saved + estimate.fixed < estimate.peak < estimate.needed


@pytest.mark.slow
def test_a_cpu_process_takes_about_what_is_estimated() -> None:
    """Measured were 0.95 to 1.25 times the tensors: libraries keep copies, and reuse some."""
    result = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True
    )
    estimate = estimate_memory(small_step())
    momentum = 4 * 4.0e6
    assert 0.8 < float(result.stdout) / (estimate.peak - estimate.fixed + momentum) < 1.5


def test_two_workers_need_little_more_than_half() -> None:
    alone = estimate_memory(small_step())
    shared = estimate_memory(small_step(), workers=2)
    assert shared.saved == pytest.approx(alone.saved / 2, rel=0.01)
    assert shared.fixed > alone.fixed


def test_a_frozen_encoder_saves_nothing_of_itself() -> None:
    whole = estimate_memory(small_step())
    frozen = estimate_memory(
        step(mib.Config(), SMALL, crop=128, batch=16, precision="float32", frozen="encoder")
    )
    assert frozen.saved < whole.saved / 2
    assert frozen.fixed < whole.fixed


def test_what_a_method_keeps_beside_the_model_is_counted() -> None:
    plain = estimate_memory(step(mib.Config(), SMALL, crop=64))
    penalty = estimate_memory(step(ewc.Config(weight=1), SMALL, crop=64))
    assert penalty.fixed > plain.fixed


@pytest.mark.parametrize(
    ("method", "least", "most"),
    [
        # Of what fine-tuning saves for its backward pass.
        (dft.Config(), 0, 0.5),
        (ssul.Config(), 0, 0.8),
        (mib_augm.Config(), 1, 9),
        (ewf.Config(trained_by=plop.Config()), 1, 9),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_is_frozen_saves_nothing(method: MethodConfig, least: float, most: float) -> None:
    plain = estimate_memory(build_step(fine_tuning.Config()))
    found = estimate_memory(build_step(method))
    assert least * plain.saved < found.saved < most * plain.saved


def test_pamr_at_image_resolution_fits_a_gpu() -> None:
    method = offline.Config(classifier_epochs=5, pseudo_labels="single_stage", resolution="image")
    assert 15 * GIGABYTE < estimate_memory(step(method)).needed < 60 * GIGABYTE


def test_memory_is_counted_until_nothing_refers_to_it() -> None:
    first = torch.zeros(250, device=META)
    with LiveMemory([first]) as live:
        second = first + 1
        assert (live.now, live.peak) == (1000, 1000)
        second.mul_(2).view(25, 10)
        assert live.now == 1000
        third = second.double()
        assert live.now == 3000
        del second, third
    assert (live.now, live.peak) == (0, 3000)


def test_what_cannot_fit_is_refused_with_what_to_do() -> None:
    document = step(mib.Config(), precision="float32")
    estimate = estimate_memory(document)
    check_fits(document, estimate, 80e9, "an H100")
    expected = (
        "step 1 .mib. needs about .* and a T4 has 16.0 GB: use optimization.precision bfloat16"
    )
    with pytest.raises(InputError, match=expected):
        check_fits(document, estimate, 16e9, "a T4")
    with pytest.raises(InputError, match="GB: use more workers"):
        check_fits(step(mib.Config()), estimate, 8e9, "this GPU")
