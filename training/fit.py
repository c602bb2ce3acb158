"""Train one step. `fit` is the training loop, from the first line to the last.

On one machine, the same document gives the same weights bit for bit, even when the training is
interrupted and resumed. The order of images and their augmentation depend on (seed, epoch, image)
only. The learning rate depends on the iteration. A checkpoint holds the rest.
"""

import time
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

from training.checkpoint import (
    load_carried,
    load_checkpoint,
    load_model,
    save_checkpoint,
    save_model,
)
from training.config import InputError, StepConfig, Task
from training.curves import CurveRow
from training.data.dataset import GlobalBatches, SegmentationDataset
from training.data.loader import load_batches
from training.data.shards import LocalSplit
from training.data.transforms import random_resized_crop
from training.journal import Journal
from training.loss_guard import LossGuard
from training.methods.base import Batch, Method, Progress
from training.models.norm import BatchNorm
from training.models.segmenter import normalise
from training.models.weights import load_encoder_weights
from training.runtime import DTYPES, Runtime
from training.scenario import image_labels, label_map, memory_image_labels, memory_label_map


def fit(
    step: StepConfig,
    data: LocalSplit,
    rows: np.ndarray,
    runtime: Runtime,
    *,
    parent: Path | None,
    encoder_weights: Path | None,
    folder: Path,
    resume: Path | None,
    journal: Journal,
) -> Path:
    """Train a step and return the folder of the files to publish (see training.checkpoint).

    Every worker calls it.

    Args:
        step: The step's document.
        data: The training split.
        rows: The images of `data` that the task selects, then those it keeps of earlier steps.
        runtime: This worker.
        parent: The published folder of the parent step.
        encoder_weights: File of pretrained weights, for a step without a parent.
        folder: Where checkpoints and the files to publish are written.
        resume: A folder that an earlier call gave to `journal.save`.
        journal: Takes the curves and the checkpoints.

    Raises:
        InputError: The images are not the ones that the document names.
        FloatingPointError: A loss is not finite.
    """
    _check_images(step.task, data, rows)
    method = build_method(step, runtime, parent, encoder_weights)
    if step.optimization.frozen == "encoder":
        method.model.encoder.requires_grad_(False)
    optimizer = SGD(
        [group | {"lr": group["initial_lr"]} for group in method.parameter_groups()],
        lr=0,
        momentum=step.optimization.momentum,
        weight_decay=step.optimization.weight_decay,
        nesterov=True,
    )
    start, curves = load_checkpoint(resume, method, optimizer) if resume else (0, [])
    per_epoch = len(rows) // step.optimization.batch
    total = round(step.optimization.epochs * per_epoch)
    trained = (
        method
        if runtime.world_size == 1
        else DistributedDataParallel(method, forward_sync_buffers=False)
    )
    autocast = torch.autocast(
        runtime.device.type, torch.bfloat16, enabled=step.optimization.precision == "bfloat16"
    )
    method.train()
    _freeze(method, step)
    if resume is None:
        with torch.no_grad(), autocast:
            method.prepare(partial(_batches, step, data, rows, runtime, 0, per_epoch))
    guard = LossGuard(runtime, total)
    sums: dict[str, Tensor] = {}
    images = 0
    logged = saved = time.monotonic()
    for iteration, batch in enumerate(_batches(step, data, rows, runtime, start, total), start):
        done = iteration + 1
        progress = Progress(iteration, total, per_epoch)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * method.learning_rate_factor(progress, group["name"])
        optimizer.zero_grad()
        with autocast:
            losses: dict[str, Tensor] = trained(batch, progress)
        guard.watch(losses, done)
        torch.stack(list(losses.values())).sum().backward()
        guard.protect(method.parameters())
        with torch.no_grad():
            method.before_update(progress)
        optimizer.step()

        sums = {name: sums.get(name, 0) + loss.detach() for name, loss in losses.items()}
        images += step.optimization.batch
        if done % runtime.log_every and done != total:
            continue
        means = _mean_losses(sums, images // step.optimization.batch, runtime)
        guard.check(means)
        now = time.monotonic()
        row: CurveRow = {
            "iteration": done,
            "total": total,
            "epoch": done / per_epoch,
            "time": time.time(),
            "images_per_second": images / (now - logged),
            "loss": sum(means.values()),
        }
        row |= runtime.usage()
        row |= {f"loss/{name}": value for name, value in means.items()}
        row |= {f"lr/{group['name']}": group["lr"] for group in optimizer.param_groups}
        curves.append(row)
        sums = {}
        logged = now
        images = 0
        if not runtime.leads:
            continue
        journal.log(row)
        due = journal.should_stop() or now - saved > runtime.checkpoint_every
        if due and done != total:
            checkpoint = folder / f"checkpoint-{done:07d}"
            save_checkpoint(checkpoint, method, optimizer, done, curves)
            journal.save(checkpoint, done)
            saved = time.monotonic()
    result = folder / "files"
    if runtime.leads:
        save_model(result, method, curves)
    return result


def _check_images(task: Task, data: LocalSplit, rows: np.ndarray) -> None:
    """Raise InputError unless the images at `rows` are the ones that the task's document names."""
    selected, kept = np.split(rows, [task.images])
    selection = data.index.selection_digest(selected)
    memory = data.index.selection_digest(kept) if len(kept) else None
    if (selection, memory) != (task.selection, task.memory):
        raise InputError(
            "the images given are not the ones that the step's document selects: "
            "its data has changed since; plan it again"
        )


def build_method(
    step: StepConfig, runtime: Runtime, parent: Path | None, encoder_weights: Path | None
) -> Method:
    """Return the step's method with its initial weights, on the worker's device.

    Random weights depend on the seed only.
    """
    torch.manual_seed(step.seed)
    previous = load_model(parent)[0] if parent else None
    module = import_module(f"training.methods.{step.method.name.replace('-', '_')}")
    method: Method = module.Method(
        step, previous, runtime.mean, load_carried(parent) if parent else None
    )
    if encoder_weights and parent is None:
        load_encoder_weights(method.model.encoder, encoder_weights)
    options = {
        "device": runtime.device,
        "dtype": DTYPES[step.optimization.precision],
        "memory_format": torch.channels_last,
    }
    if previous is not None:
        previous.to(**options)
    return method.to(**options)


def _freeze(method: Method, step: StepConfig) -> None:
    """Put the modules that must keep their statistics into evaluation mode."""
    if step.optimization.frozen == "encoder":
        method.model.encoder.eval()
    elif step.optimization.frozen == "statistics":
        for module in method.model.modules():
            if isinstance(module, BatchNorm):
                module.eval()


def _batches(
    step: StepConfig, data: LocalSplit, rows: np.ndarray, runtime: Runtime, start: int, total: int
) -> Iterator[Batch]:
    """Yield this worker's share of the global batches start..total, on its device.

    Weak steps never read masks.
    """
    weak = step.task.supervision == "image"
    dataset = SegmentationDataset(
        data,
        rows,
        transform=partial(random_resized_crop, augmentation=step.augmentation),
        label_map=None if weak else _label_maps(step.task, len(rows)),
        seed=step.seed,
    )
    order = GlobalBatches(
        len(rows),
        step.optimization.batch,
        step.seed,
        runtime.rank,
        runtime.world_size,
        start_iteration=start,
        total_iterations=total,
    )
    kept = rows[step.task.images :]
    labels = image_labels(step.task, data.index.labels)
    labels[kept] = memory_image_labels(step.task, data.index.labels[kept])
    known = torch.from_numpy(labels)
    dtype = DTYPES[step.optimization.precision]
    for items in load_batches(dataset, order, step.augmentation.crop, runtime.loader_workers):
        pixels = items["image"].to(runtime.device, non_blocking=True)
        targets = None if weak else items["mask"].to(runtime.device, non_blocking=True).long()
        image_level = known[items["row"]].to(runtime.device, dtype)
        yield Batch(pixels, normalise(pixels, dtype), targets, image_level)


def _label_maps(task: Task, count: int) -> np.ndarray:
    """Return how masks are read: one table, or one for each of `count` images.

    Images that are kept of earlier steps have a table of their own.
    """
    if not task.memory_images:
        return label_map(task)
    kept = np.arange(count) >= task.images
    return np.stack([label_map(task), memory_label_map(task)])[kept.astype(int)]


def _mean_losses(sums: dict[str, Tensor], iterations: int, runtime: Runtime) -> dict[str, float]:
    """Return each loss's mean over the iterations and the workers."""
    values = runtime.all_sum(torch.stack(list(sums.values())).double()) / (
        iterations * runtime.world_size
    )
    return dict(zip(sums, values.tolist(), strict=True))
