"""Measure training on a GPU: does a chain run, and how fast is ResNet-101 at the papers' sizes.

    python -m benchmarks.gpu --out build/gpu.json

The first part trains both steps of `digits_wilson` for a few epochs by `training.fit`. The second
part times WILSON's weak step with DeepLabV3 on ResNet-101, at crop 512 and batch 24. The batch is
halved until it fits the GPU's memory. Weights are random and images are synthetic, so nothing is
downloaded. The result is one JSON document; it is printed and written to `--out`.

Each precision is timed apart: bfloat16, float32 with TF32 convolutions (PyTorch's default), and
float32 with IEEE convolutions. `synchronizations` lists the source lines at which one iteration
waits for the GPU. `--cpu` runs tiny sizes on the CPU, which only tests this script.
"""

import gc
import json
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch.optim import SGD

from orchestrator.datasets.ingest import ingest
from orchestrator.datasets.stored_split import open_stored_split
from orchestrator.planning.campaign import with_field
from orchestrator.planning.planner import plan_chain
from orchestrator.store.open import open_store
from stepchain.presets import digits_wilson
from training.checkpoint import freeze
from training.config import Augmentation, ModelConfig, Optimization, StepConfig, Task
from training.data.digits import Digits
from training.fit import fit
from training.journal import MemoryJournal
from training.methods import base, wilson
from training.models.segmenter import Segmenter, normalise
from training.runtime import Runtime

Precision = Literal["bfloat16", "float32"]
# Name in the result, precision of the step, precision of cuDNN's float32 convolutions.
PRECISIONS: tuple[tuple[str, Precision, str], ...] = (
    ("bfloat16", "bfloat16", "tf32"),
    ("float32_tf32", "float32", "tf32"),
    ("float32_ieee", "float32", "ieee"),
)


@dataclass(frozen=True)
class Sizes:
    """How much is trained; the defaults are the papers' sizes."""

    scenes: int = 600  # of digits
    digits_epochs: float = 4
    model: ModelConfig = field(default_factory=lambda: ModelConfig(activation="leaky_relu"))
    crop: int = 512  # pixels
    batch: int = 24  # the largest that is tried
    warm_up: int = 10  # iterations before the clock starts
    iterations: int = 50


TINY = Sizes(
    scenes=60,
    digits_epochs=1,
    model=ModelConfig(encoder="tiny", output_stride=4, head_channels=8),
    crop=32,
    batch=4,
    warm_up=1,
    iterations=2,
)


def main(out: Path = Path("build/gpu.json"), cpu: bool = False) -> None:
    """Measure.

    Args:
        out: File for the result.
        cpu: Run tiny sizes on the CPU, to test this script.
    """
    if not cpu and not torch.cuda.is_available():
        raise SystemExit("PyTorch finds no GPU here; --cpu tests this script with tiny sizes")
    device = torch.device("cpu" if cpu else "cuda")
    sizes = TINY if cpu else Sizes()
    result: dict[str, Any] = {"machine": describe_machine(device)}
    with tempfile.TemporaryDirectory() as scratch:
        result["digits_wilson"] = list(train_digits(Path(scratch), device, sizes))
    result["resnet101"] = {}
    for name, precision, convolutions in PRECISIONS:
        with convolution_precision(convolutions):
            measured = time_weak_step(device, sizes, precision)
        result["resnet101"][name] = measured
        print(name, json.dumps(measured), flush=True)
    document = json.dumps(result, indent=1)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(document + "\n")
    print(document)


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return the names and versions that the numbers belong to."""
    found: dict[str, Any] = {"python": platform.python_version(), "torch": torch.__version__}
    if device.type != "cuda":
        return found | {"device": "cpu"}
    properties = torch.cuda.get_device_properties(device)
    return found | {
        "device": properties.name,
        "memory_gb": properties.total_memory / 1e9,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def train_digits(folder: Path, device: torch.device, sizes: Sizes) -> Iterator[dict[str, Any]]:
    """Train step 0 and step 1 of `digits_wilson`; yield the numbers of each."""
    store = open_store(str(folder / "store"))
    manifest = ingest(Digits(train=sizes.scenes, val=1), store, "digits", where="here").manifest
    data = open_stored_split(store, manifest, "train", folder / "cache")
    chain = digits_wilson()
    for path, value in {
        "base.optimization.epochs": sizes.digits_epochs,
        "optimization.epochs": sizes.digits_epochs,
        "method.warmup_epochs": sizes.digits_epochs / 2,
    }.items():
        chain = with_field(chain, path, value)
    runtime = Runtime(device=device, log_every=1)
    parent: Path | None = None
    for planned in plan_chain(chain, store).steps:
        journal = MemoryJournal()
        reset_peak_memory(device)
        begun = time.monotonic()
        parent = fit(
            planned.step,
            data,
            planned.rows,
            runtime,
            parent=parent,
            encoder_weights=None,
            folder=folder / planned.key,
            resume=None,
            journal=journal,
        )
        rows = journal.rows
        yield {
            "step": planned.index,
            "iterations": rows[-1]["iteration"],
            "seconds": time.monotonic() - begun,
            "first_loss": rows[0]["loss"],
            "last_loss": rows[-1]["loss"],
            "peak_memory_gb": peak_memory(device),
        }


def time_weak_step(device: torch.device, sizes: Sizes, precision: Precision) -> dict[str, Any]:
    """Time WILSON's step 15-5 after its warm-up epochs, with the largest batch that fits."""

    def measure(batch: int) -> dict[str, Any]:
        return _measure(_WeakStep(device, sizes, precision, batch), device, sizes)

    return largest_batch(measure, sizes.batch)


def largest_batch(
    measure: Callable[[int], dict[str, Any]], batch: int, smallest: int = 2
) -> dict[str, Any]:
    """Return what `measure` returns, with the batch halved while the GPU is out of memory.

    If even `smallest` does not fit, `out_of_memory` is its only number.
    """
    while batch >= smallest:
        try:
            return measure(batch)
        except torch.OutOfMemoryError:
            print(f"a batch of {batch} does not fit", flush=True)
        # The exception and its tensors are freed only after the except block.
        gc.collect()
        torch.cuda.empty_cache()
        batch //= 2
    return {"out_of_memory": True}


class _WeakStep:
    """One iteration after another of a WILSON step, as in `training.fit`, on one random batch."""

    def __init__(
        self, device: torch.device, sizes: Sizes, precision: Precision, batch: int
    ) -> None:
        task = Task(
            data="synthetic",
            groups=(tuple(range(1, 16)), tuple(range(16, 21))),
            selection="synthetic",
            images=batch,
            supervision="image",
        )
        step = StepConfig(
            task=task,
            method=wilson.Config(warmup_epochs=0),
            model=sizes.model,
            optimization=Optimization(batch=batch, encoder_lr=0.001, precision=precision),
            augmentation=Augmentation(crop=sizes.crop),
        )
        torch.manual_seed(step.seed)
        previous = freeze(Segmenter(step.model, task.channels[:-1]))
        placed: dict[str, Any] = {"device": device, "memory_format": torch.channels_last}
        previous.to(**placed)
        self.method = wilson.Method(step, previous).to(**placed).train()
        self.optimizer = SGD(
            [group | {"lr": group["initial_lr"]} for group in self.method.parameter_groups()],
            momentum=step.optimization.momentum,
            weight_decay=step.optimization.weight_decay,
            nesterov=True,
        )
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
        pixels = torch.randint(0, 256, (batch, 3, sizes.crop, sizes.crop), dtype=torch.uint8)
        pixels = pixels.to(device, memory_format=torch.channels_last)
        labels = torch.zeros(batch, len(task.classes), device=device)
        labels[:, len(task.previous_classes)] = 1
        self.batch = base.Batch(pixels, normalise(pixels), None, labels)

    def run(self) -> None:
        """Train one iteration."""
        self.optimizer.zero_grad()
        with self.autocast:
            losses = self.method(self.batch, base.Progress(0, 1000, 100))
        torch.stack(list(losses.values())).sum().backward()
        self.optimizer.step()


def _measure(step: _WeakStep, device: torch.device, sizes: Sizes) -> dict[str, Any]:
    for _ in range(sizes.warm_up):
        step.run()
    synchronize(device)
    reset_peak_memory(device)
    begun = time.perf_counter()
    for _ in range(sizes.iterations):
        step.run()
    synchronize(device)
    seconds = time.perf_counter() - begun
    images = len(step.batch.pixels)
    return {
        "batch": images,
        "iterations": sizes.iterations,
        "images_per_second": images * sizes.iterations / seconds,
        "peak_memory_gb": peak_memory(device),
        "synchronizations": find_synchronizations(step.run, device),
    }


def find_synchronizations(run: Callable[[], None], device: torch.device) -> list[str]:
    """Return the source lines at which `run` waits for the GPU, each `file:line`."""
    if device.type != "cuda":
        return []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return [f"{Path(warning.filename).name}:{warning.lineno}" for warning in caught]


@contextmanager
def convolution_precision(value: str) -> Iterator[None]:
    """Set how cuDNN computes float32 convolutions: `tf32` or `ieee`."""
    convolutions = torch.backends.cudnn.conv  # pyright: ignore[reportAttributeAccessIssue]
    before = convolutions.fp32_precision
    convolutions.fp32_precision = value
    try:
        yield
    finally:
        convolutions.fp32_precision = before


def synchronize(device: torch.device) -> None:
    """Wait until the GPU has done all work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak_memory(device: torch.device) -> None:
    """Start a new measurement of the peak memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> float | None:
    """Return the most memory allocated on the GPU since the reset, in gigabytes."""
    if device.type != "cuda":
        return None
    return torch.cuda.max_memory_allocated(device) / 1e9


if __name__ == "__main__":
    tyro.cli(main)
