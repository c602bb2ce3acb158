"""Train one step. `fit` is the training loop, from the first line to the last.

On one machine, the same document gives the same weights bit for bit, even when the training is
interrupted and resumed. The order of images and their augmentation depend on (seed, epoch, image)
only. The learning rate depends on the iteration. A checkpoint holds the rest.
"""

import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.allocator import keep_freed_memory
from training.batches import step_batches
from training.checkpoint import (
    load_carried,
    load_checkpoint,
    load_model,
    save_model,
    take_snapshot,
)
from training.compilation import compile_encoder
from training.config import InputError, MethodConfig, Task
from training.curves import CurveRow
from training.data.shards import LocalSplit
from training.iteration import build_optimizer, distribute, iterate, method_class, place
from training.journal import Journal
from training.loss_guard import LossGuard
from training.memory_estimate import check_device
from training.methods.base import Method, Progress
from training.models.weights import load_encoder_weights
from training.precision import autocast, gradient_scaler, set_precision
from training.runtime import Runtime
from training.step_config import StepConfig
from training.stopwatch import measured, timed


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
        journal: Takes the curves and the checkpoints, and how long training waited.

    Raises:
        InputError: The images are not the ones that the document names, the document is of another
            recipe, or the GPU has too little memory.
        FloatingPointError: A loss is not finite.
    """
    _check_images(step.task, data, rows)
    _check_layers(step, data, rows)
    _check_recipe(step.method)
    check_device(step, runtime.world_size, runtime.device, runtime.gpu_share)
    precision = step.optimization.precision
    keep_freed_memory(runtime.device)
    set_precision(precision, runtime.device, fixed_shapes=True)
    method = build_method(step, runtime, parent, encoder_weights)
    optimizer = build_optimizer(method, runtime.device)
    if runtime.compile_cache is not None:
        compile_encoder(method.model.encoder, runtime.compile_cache)
    scaler = gradient_scaler(precision, runtime.device)
    start, curves = load_checkpoint(resume, method, optimizer, scaler) if resume else (0, [])
    per_epoch = step.iterations_per_epoch
    total = round(step.optimization.epochs * per_epoch)
    trained = distribute(method, runtime)
    rounding = autocast(precision, runtime.device)
    batches = partial(step_batches, step, data, rows, runtime)
    if resume is None:
        with torch.no_grad(), rounding:
            method.prepare(lambda: timed(batches(0, per_epoch), journal.waited, "data"))
    guard = LossGuard(runtime, total)
    sums: dict[str, Tensor] = {}
    images = 0
    logged = saved = time.monotonic()
    awaited = timed(batches(start, total), journal.waited, "data")
    for iteration, batch in enumerate(awaited, start):
        done = iteration + 1
        progress = Progress(iteration, total, per_epoch)
        losses = iterate(trained, method, optimizer, guard, batch, progress, rounding, scaler)
        sums = {name: sums.get(name, 0) + loss.detach() for name, loss in losses.items()}
        images += step.optimization.batch
        if done % runtime.log_every and done != total:
            continue
        stop = runtime.leads and journal.should_stop()
        means, stop = _share_log(sums, images // step.optimization.batch, stop, runtime)
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
        if runtime.leads:
            journal.log(row)
            due = stop or now - saved > runtime.checkpoint_every
            if due and done != total:
                with measured(journal.waited, "checkpoint"):
                    snapshot = take_snapshot(method, optimizer, scaler, done, curves)
                    journal.save(snapshot, folder / f"checkpoint-{done:07d}")
                saved = time.monotonic()
        if stop and done != total:
            # Workers that end before rank 0 has kept its checkpoint would take it along.
            runtime.wait_for_all()
            journal.stop()
    with torch.no_grad():
        method.finish()
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


def _check_layers(step: StepConfig, data: LocalSplit, rows: np.ndarray) -> None:
    """Raise InputError unless the layers' maps of the images are those that the document names."""
    for layer in step.method.layers:
        maps = data.layers[layer].index
        if maps.selection_digest(data.layer_rows(layer, rows)) != layer:
            raise InputError(
                f"the maps of {data.layers[layer].name} are not the ones that the step's document "
                "names: the layer has changed since; plan it again"
            )


def _check_recipe(method: MethodConfig) -> None:
    """Raise InputError for a document that this code would train to other weights than it names."""
    if method.recipe != method.current_recipe:
        raise InputError(
            f"the step has recipe {method.recipe} of {method.name!r}, and this code trains recipe "
            f"{method.current_recipe}: plan it again"
        )


def build_method(
    step: StepConfig, runtime: Runtime, parent: Path | None, encoder_weights: Path | None
) -> Method:
    """Return the step's method with its initial weights, on the worker's device.

    Random weights depend on the seed only.
    """
    torch.manual_seed(step.seed)
    previous = load_model(parent)[0] if parent else None
    inherited = load_carried(parent) if parent else None
    method = method_class(step.method)(step, previous, runtime.mean, inherited)
    if encoder_weights and parent is None:
        load_encoder_weights(method.model.encoder, encoder_weights)
    return place(method, runtime.device)


def _share_log(
    sums: dict[str, Tensor], iterations: int, stop: bool, runtime: Runtime
) -> tuple[dict[str, float], bool]:
    """Return each loss's mean over the iterations and workers, and whether any worker must stop.

    All workers get the same answer, so they stop together, and none waits for one that is gone.
    """
    values = torch.stack(list(sums.values())).double()
    *totals, stopping = runtime.all_sum(torch.cat([values, values.new_full((1,), stop)])).tolist()
    count = iterations * runtime.world_size
    return {name: total / count for name, total in zip(sums, totals, strict=True)}, stopping > 0
