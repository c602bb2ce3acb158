"""Check what a GPU computes beside a CPU, and what two workers compute beside one.

Losses are compared, not accuracies: a curve in bfloat16 on a GPU should follow float32 on a CPU,
and two workers should have the losses of one that takes the whole batch.
"""

import socket
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as distributed
from torch.multiprocessing.spawn import spawn

from benchmarks.gpu_measure import TOTAL, synchronize
from benchmarks.gpu_steps import TINY, Sizes, build_batch, build_method, build_step
from training.config import Precision
from training.iteration import build_optimizer, distribute, iterate
from training.loss_guard import LossGuard
from training.methods.base import Batch, Progress
from training.precision import autocast, gradient_scaler, set_precision
from training.runtime import Runtime

CPU = torch.device("cpu")
PER_EPOCH = 20  # of the TOTAL iterations
# Rounding differences grow with every iteration, fifty times at these sizes.
PAIR_ITERATIONS = 2


def loss_curve(sizes: Sizes, device: torch.device, precision: Precision) -> list[float]:
    """Return the loss of each iteration of WILSON after its warm-up, from the same weights."""
    step = build_step("wilson", sizes, precision)
    set_precision(precision, device, fixed_shapes=True)
    return _losses(build_batch(step, device), step, Runtime(device=device), sizes.curve)


def curves(sizes: Sizes, device: torch.device) -> dict[str, list[float]]:
    """Return the curves of the CPU and, in three precisions, of the device."""
    found = {"cpu float32": loss_curve(sizes, CPU, "float32")}
    precisions: tuple[Precision, ...] = ("float32", "tf32", "bfloat16")
    for precision in precisions:
        found[f"{device.type} {precision}"] = loss_curve(sizes, device, precision)
    return found


def two_workers() -> dict[str, Any]:
    """Train by two workers and by one; return their losses and the largest difference.

    The workers have a GPU each where there are two; with one or none they are on the CPU.
    """
    on_gpus = torch.cuda.device_count() > 1
    alone = _losses(*_pair_batch(CPU, slice(None)), Runtime(), PAIR_ITERATIONS)
    with TemporaryDirectory() as folder:
        # One thread: two workers on few cores would wait for each other.
        spawn(_work, (_free_port(), folder, on_gpus), nprocs=2)
        shares = [torch.load(Path(folder, f"{rank}.pt"), weights_only=True) for rank in range(2)]
    together = [sum(pair) / 2 for pair in zip(*shares, strict=True)]
    pairs = zip(alone, together, strict=True)
    return {
        "backend": "nccl" if on_gpus else "gloo",
        "one": alone,
        "two": together,
        "difference": max(abs(one - two) for one, two in pairs),
    }


def _work(rank: int, port: int, folder: str, on_gpus: bool) -> None:
    """Train as one of two workers and write the losses to a file."""
    torch.set_num_threads(1)
    device = torch.device("cuda", rank) if on_gpus else CPU
    if on_gpus:
        torch.cuda.set_device(device)
    distributed.init_process_group(
        "nccl" if on_gpus else "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=2,
    )
    runtime = Runtime(rank=rank, world_size=2, device=device)
    half = TINY.batch // 2
    batch, step = _pair_batch(device, slice(rank * half, (rank + 1) * half))
    losses = _losses(batch, step, runtime, PAIR_ITERATIONS)
    torch.save(losses, Path(folder, f"{rank}.pt"))
    distributed.destroy_process_group()


def _pair_batch(device: torch.device, share: slice) -> tuple[Batch, Any]:
    """Return a worker's share of a small batch, and the document of its step."""
    step = build_step("wilson", TINY, "float64")
    whole = build_batch(step, device)
    parts = whole._asdict().items()
    cut = {name: part[share] for name, part in parts if isinstance(part, torch.Tensor)}
    return whole._replace(**cut), step


def _losses(batch: Batch, step: Any, runtime: Runtime, iterations: int) -> list[float]:
    """Return the loss of each iteration on one batch."""
    device = runtime.device
    method = build_method(step, device, runtime.mean)
    trained = distribute(method, runtime)
    optimizer = build_optimizer(method, device)
    guard = LossGuard(runtime, TOTAL)
    rounding = autocast(step.optimization.precision, device)
    scaler = gradient_scaler(step.optimization.precision, device)
    losses = []
    for iteration in range(PER_EPOCH, PER_EPOCH + iterations):
        progress = Progress(iteration, TOTAL, PER_EPOCH)
        found = iterate(trained, method, optimizer, guard, batch, progress, rounding, scaler)
        losses.append(torch.stack(list(found.values())).sum().detach())
    synchronize(device)
    return [loss.item() for loss in losses]


def _free_port() -> int:
    """Return a port of this machine that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
