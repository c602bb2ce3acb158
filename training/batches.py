"""Give a step's batches: the images that its task selects, with the labels that it may know."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from training.config import Task
from training.data.dataset import GlobalBatches, SegmentationDataset
from training.data.layers import LARGEST_VALUE
from training.data.loader import load_batches
from training.data.shards import LocalSplit
from training.data.transforms import random_resized_crop, random_resized_layer
from training.methods.base import Batch
from training.models.segmenter import normaliser
from training.precision import DTYPES
from training.runtime import Runtime
from training.scenario import image_labels, label_map, memory_image_labels, memory_label_map
from training.step_config import StepConfig


def step_batches(
    step: StepConfig, data: LocalSplit, rows: np.ndarray, runtime: Runtime, start: int, total: int
) -> Iterator[Batch]:
    """Yield this worker's share of the global batches start..total, on its device.

    Weak steps never read masks, and only a step whose method names a layer reads it. On a GPU the
    host waits for no copy: what is copied is pinned.

    Args:
        step: The step's document.
        data: The training split.
        rows: The images of `data` that the task selects, then those it keeps of earlier steps.
        runtime: This worker.
        start: The first iteration.
        total: The iteration to end before.

    Raises:
        InputError: The workers cannot share a batch, or the images fill none.
        BadData: An image, a mask or the map of a layer cannot be decoded, or a map that should hold
            class ids holds something else.
        Unavailable: A shard cannot be read or fetched.
    """
    weak = step.task.supervision == "image"
    dataset = SegmentationDataset(
        data,
        rows,
        transform=partial(random_resized_crop, augmentation=step.augmentation),
        label_map=None if weak else _label_maps(step.task, len(rows)),
        seed=step.seed,
        layers=step.method.layers,
        layer_transform=partial(random_resized_layer, augmentation=step.augmentation),
        layers_hold_classes=step.method.layers_hold_classes,
    )
    order = GlobalBatches(
        len(rows),
        step.optimization.batch,
        step.seed,
        runtime.rank,
        runtime.world_size,
        start_iteration=start,
        total_iterations=total,
        kept=step.task.memory_images,
        kept_per_batch=step.kept_per_batch,
    )
    dtype = DTYPES[step.optimization.precision]
    device = runtime.device
    pinned = device.type == "cuda"
    known = _known_labels(step.task, data, rows).to(dtype)
    is_kept = torch.zeros(len(data.index.ids), dtype=torch.bool)
    is_kept[torch.from_numpy(rows[step.task.images :])] = True
    normalise = normaliser(device, dtype)
    batches = load_batches(
        dataset, order, step.augmentation.crop, runtime.loader_workers, pinned=pinned
    )
    for items in batches:
        pixels = items["image"].to(device, non_blocking=True)
        targets = None if weak else items["mask"].to(device, non_blocking=True).long()
        labels, kept = known[items["row"]], is_kept[items["row"]]
        if pinned:
            labels, kept = labels.pin_memory(), kept.pin_memory()
        labels = labels.to(device, non_blocking=True)
        layers = {}
        for layer in dataset.layers:
            values = items[layer].to(device, non_blocking=True)
            layers[layer] = values.int() & LARGEST_VALUE
        kept = None if step.task.memory is None else kept.to(device, non_blocking=True)
        yield Batch(pixels, normalise(pixels), targets, labels, layers, kept)


def _known_labels(task: Task, data: LocalSplit, rows: np.ndarray) -> torch.Tensor:
    """Return the image labels that the step may use, bool [images of the split, classes]."""
    kept = rows[task.images :]
    labels = image_labels(task, data.index.labels)
    labels[kept] = memory_image_labels(task, data.index.labels[kept])
    return torch.from_numpy(labels)


def _label_maps(task: Task, count: int) -> np.ndarray:
    """Return how masks are read: one table, or one for each of `count` images.

    Images that are kept of earlier steps have a table of their own.
    """
    if not task.memory_images:
        return label_map(task)
    kept = np.arange(count) >= task.images
    return np.stack([label_map(task), memory_label_map(task)])[kept.astype(int)]
