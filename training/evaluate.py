"""Score a published model: predict every image once, and count the confusions.

The result holds, per image, how many pixels of each ground-truth class were predicted as each class
that the model knows. Ground truth covers all classes of the dataset, and void. All scores are
derived from these counts (`training.metrics`), so no convention about void, background or future
classes enters here.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow
import torch
from torch import Tensor

from training.config import BACKGROUND, VOID, EvaluationConfig, Precision
from training.data.dataset import Item, SegmentationDataset
from training.data.loader import load_items
from training.data.shards import LocalSplit
from training.data.transforms import evaluation_view
from training.methods.base import full_precision
from training.metrics import confusion_counts
from training.models.segmenter import Segmenter, normalise, upsample
from training.precision import autocast
from training.runtime import Runtime
from training.trained_model import load_trained

SCHEMA = pyarrow.schema(
    [
        ("image", pyarrow.uint32()),
        ("truth", pyarrow.uint8()),
        ("predicted", pyarrow.uint8()),
        ("pixels", pyarrow.uint32()),
    ]
)


def evaluate(
    model_folder: Path,
    data: LocalSplit,
    config: EvaluationConfig,
    runtime: Runtime,
    batch: int = 16,
    precision: Precision = "float32",
    check: Callable[[], object] = lambda: None,
) -> pyarrow.Table:
    """Count the confusions of this worker's images: rows rank, rank + world_size, ... of the split.

    Args:
        model_folder: The files of a published step.
        data: The split.
        config: How images are resized and cropped.
        runtime: This worker. Its loader processes decode the images.
        batch: Images that are predicted together.
        precision: In which the step was trained. A GPU predicts in it; a CPU does not round.
        check: Called before each batch. What it raises ends the evaluation.

    Returns:
        Columns image (row of the split), truth and predicted (dataset ids; truth 255 is void), and
        pixels. A class that an image shows only outside of the crop has a row of no pixels.
    """
    device = runtime.device
    trained = load_trained(model_folder, device, precision)
    rows = np.arange(runtime.rank, len(data.index.ids), runtime.world_size)

    def predictor(images: Tensor) -> Tensor:
        check()
        return predict(trained.model, images, trained.class_ids)

    with autocast(trained.precision, device):
        counted = confusion(predictor, data, rows, config, device, batch, runtime.loader_workers)
    return pyarrow.concat_tables([counted, outside_the_crop(counted, data, rows)])


def outside_the_crop(counted: pyarrow.Table, data: LocalSplit, rows: np.ndarray) -> pyarrow.Table:
    """Return a row of no pixels for each class that an image shows, but not where it is scored.

    Papers that drop images without a learned class look at the whole image.

    Args:
        counted: The counts of the images at `rows`.
        data: The split.
        rows: The rows of the images.
    """
    shown = data.index.labels[rows]
    position = np.full(len(data.index.ids), -1)
    position[rows] = np.arange(len(rows))
    image, truth = (
        np.from_dlpack(counted[name].combine_chunks()).astype(np.int64)
        for name in ("image", "truth")
    )
    named = (truth > BACKGROUND) & (truth < VOID)
    shown[position[image[named]], truth[named] - 1] = False
    missing, column = np.nonzero(shown)
    nothing = np.zeros(len(missing))
    values = (rows[missing], column + 1, nothing, nothing)
    arrays = [pyarrow.array(v, kind) for v, kind in zip(values, SCHEMA.types, strict=True)]
    return pyarrow.table(arrays, schema=SCHEMA)


def confusion(
    predictor: Callable[[Tensor], Tensor],
    data: LocalSplit,
    rows: np.ndarray,
    config: EvaluationConfig,
    device: torch.device,
    batch: int = 16,
    processes: int = 0,
) -> pyarrow.Table:
    """Count the confusions of the images at `rows`, which `processes` decode; 0: this process.

    `predictor` maps uint8 images [B, 3, H, W] to dataset ids, uint8 [B, H, W].
    """
    columns: list[list[np.ndarray]] = [[] for _ in SCHEMA]
    count = count_confusions if device.type == "cuda" else count_each_alone
    for items in same_sized(load_items(views(data, rows, config), processes), batch):
        images, masks = (to_device(items, name, device) for name in ("image", "mask"))
        row_of = np.array([item["row"] for item in items])
        position, *counted = count(masks, predictor(images))
        for column, values in zip(columns, (row_of[position], *counted), strict=True):
            column.append(values)
    arrays = []
    for column, kind in zip(columns, SCHEMA.types, strict=True):
        values = np.concatenate(column) if column else np.empty(0)
        arrays.append(pyarrow.array(values, kind))
    return pyarrow.table(arrays, schema=SCHEMA)


def count_confusions(truth: Tensor, predicted: Tensor) -> tuple[np.ndarray, ...]:
    """Count the pairs of true and predicted class in each of some label maps, on their device.

    Args:
        truth: True classes, uint8 [B, H, W].
        predicted: Predicted classes, uint8 [B, H, W].

    Returns:
        The pairs that occur, sorted by image, truth and prediction: number of the image int64,
        truth uint8, predicted uint8, and pixels uint32.
    """
    image = torch.arange(len(truth), dtype=torch.int32, device=truth.device)
    pairs = image[:, None, None] << 16 | truth.int() << 8 | predicted
    counts = torch.bincount(pairs.flatten(), minlength=len(truth) << 16)
    found = counts.nonzero().flatten()
    pairs, pixels = torch.stack([found, counts[found]]).cpu().numpy()
    return (
        pairs >> 16,
        (pairs >> 8 & 255).astype(np.uint8),
        (pairs & 255).astype(np.uint8),
        pixels.astype(np.uint32),
    )


def count_each_alone(truth: Tensor, predicted: Tensor) -> tuple[np.ndarray, ...]:
    """Count as `count_confusions` does, with maps of a CPU: its cache holds the counts of one."""
    counted = []
    for number, maps in enumerate(zip(truth.numpy(), predicted.numpy(), strict=True)):
        columns = confusion_counts(*maps)
        counted.append((np.full(len(columns[0]), number), *columns))
    return tuple(np.concatenate(column) for column in zip(*counted, strict=True))


def to_device(items: Sequence[Item], name: str, device: torch.device) -> Tensor:
    """Stack the items' images or masks and copy them to the device, without waiting for a GPU."""
    stacked = torch.stack([item[name] for item in items])
    if device.type == "cuda":
        stacked = stacked.pin_memory()
    return stacked.to(device, non_blocking=True)


def views(data: LocalSplit, rows: np.ndarray, config: EvaluationConfig) -> SegmentationDataset:
    """Return the images and masks (dataset ids, 255 is void) at `rows`, resized and cropped."""
    transform = partial(evaluation_view, config=config)
    return SegmentationDataset(
        data, rows, transform=transform, label_map=np.arange(256, dtype=np.uint8), seed=0
    )


@torch.inference_mode()
def predict(model: Segmenter, pixels: Tensor, class_ids: Tensor) -> Tensor:
    """Return the dataset id of the likeliest class at each pixel.

    Images are uint8 [B, 3, H, W], the result is uint8 [B, H, W].
    """
    dtype = next(model.parameters()).dtype
    images = normalise(pixels, dtype).contiguous(memory_format=torch.channels_last)
    logits = full_precision(model(images).logits)
    return class_ids[upsample(logits, pixels.shape[-2:]).argmax(1)]


def same_sized(items: Iterable[Item], batch: int) -> Iterator[list[Item]]:
    """Yield consecutive items of one size, at most `batch` at a time.

    No image is padded or repeated.
    """
    pending: list[Item] = []
    for item in items:
        if pending and (len(pending) == batch or item["image"].shape != pending[0]["image"].shape):
            yield pending
            pending = []
        pending.append(item)
    if pending:
        yield pending
