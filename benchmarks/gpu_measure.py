"""Measure one variant of a step on a device: time, memory, kernels, and where the host waits.

A variant is this code or the transcription of the published one (`benchmarks.peer`), in one
precision. This code's iteration is `training.iteration.iterate`, the one that trains. Loading and
copying of images are left out, and so is logging.
"""

import platform
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Literal

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_steps import build_batch, build_method
from benchmarks.peer import Peer
from training.compilation import compile_encoder
from training.config import Precision
from training.iteration import build_optimizer, iterate
from training.loss_guard import LossGuard
from training.methods.base import Progress
from training.precision import autocast, gradient_scaler, set_precision
from training.runtime import Runtime
from training.step_config import StepConfig

TOTAL = 1000  # iterations of the step, of which those after the warm-up are measured
LATE = Progress(iteration=900, total=TOTAL, per_epoch=20)


@dataclass(frozen=True)
class Variant:
    """Whose code trains, and in which precision."""

    code: Literal["ours", "peer"]
    precision: Precision
    compiled: bool = False

    @property
    def title(self) -> str:
        """Return the variant's name for tables."""
        name = "this code" if self.code == "ours" else "transcription"
        return f"{name}, compiled" if self.compiled else name


def build_run(variant: Variant, step: StepConfig, device: torch.device) -> Callable[[], None]:
    """Return a function that trains one iteration of the step by the variant."""
    batch = build_batch(step, device)
    if variant.code == "peer":
        peer = Peer(step, device)
        images = batch.images.contiguous()
        labels = batch.image_labels if batch.targets is None else batch.targets

        def run_peer() -> None:
            peer.iterate(images, labels)

        return run_peer
    method = build_method(step, device)
    if variant.compiled:
        compile_encoder(method.model.encoder, Path(mkdtemp(prefix="stepchain-compiled-")))
    optimizer = build_optimizer(method, device)
    guard = LossGuard(Runtime(device=device), TOTAL)
    rounding = autocast(step.optimization.precision, device)
    scaler = gradient_scaler(step.optimization.precision, device)

    def run() -> None:
        iterate(method, method, optimizer, guard, batch, LATE, rounding, scaler)

    return run


def seconds_each(
    run: Callable[[], None], device: torch.device, precision: Precision, iterations: int
) -> float:
    """Return the seconds of one of so many iterations."""
    set_precision(precision, device, fixed_shapes=True)
    synchronize(device)
    begun = time.perf_counter()
    for _ in range(iterations):
        run()
    synchronize(device)
    return (time.perf_counter() - begun) / iterations


def count_kernels(run: Callable[[], None], device: torch.device) -> int | None:
    """Return how many kernels and copies an iteration starts on a GPU; None on a CPU."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        run()
        synchronize(device)
    if device.type != "cuda":
        return None
    return sum(event.device_type.name == "CUDA" for event in profiler.events() or ())


def find_waits(run: Callable[[], None], device: torch.device) -> list[str]:
    """Return the source lines at which an iteration waits for the GPU, each `file:line`."""
    if device.type != "cuda":
        run()
        return []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return [f"{Path(warning.filename).name}:{warning.lineno}" for warning in caught]


def peak_product(device: torch.device, precision: Precision, side: int) -> float:
    """Return the FLOP per second of a product of two square matrices."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    left, right = (torch.rand(side, side, device=device, dtype=dtype) for _ in range(2))

    def run() -> None:
        torch.mm(left, right)

    seconds_each(run, device, precision, 3)
    return 2 * side**3 / seconds_each(run, device, precision, 10)


def peak_copy(device: torch.device, size: int) -> float:
    """Return the bytes per second that a copy within the device reads and writes."""
    source = torch.zeros(size, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)

    def run() -> None:
        target.copy_(source)

    seconds_each(run, device, "float32", 3)
    return 2 * size / seconds_each(run, device, "float32", 10)


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return the names and versions that the numbers belong to."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": "cpu",
        "gpus": torch.cuda.device_count(),
    }
    if device.type != "cuda":
        return found
    properties = torch.cuda.get_device_properties(device)
    return found | {
        "device": properties.name,
        "memory_gigabytes": properties.total_memory / 1e9,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def synchronize(device: torch.device) -> None:
    """Wait until the GPU has done all work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def allocated(device: torch.device) -> int:
    """Return the bytes that tensors take on the GPU, 0 on a CPU; start a new peak."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def peak_since(before: int, device: torch.device) -> float | None:
    """Return the most gigabytes that tensors took beyond `before`; None on a CPU."""
    if device.type != "cuda":
        return None
    return (torch.cuda.max_memory_allocated(device) - before) / 1e9
