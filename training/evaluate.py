"""Score a published model: predict every image once, and count the confusions.

The result holds, per image, how many pixels of each ground-truth class were predicted as each class
that the model knows. Ground truth covers all classes of the dataset, and void. All scores are
derived from these counts (`training.metrics`), so no convention about void, background or future
classes enters here.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import torch
from torch import Tensor

from training.checkpoint import load_model
from training.config import EvaluationConfig
from training.data.dataset import SegmentationDataset
from training.data.shards import LocalSplit
from training.data.transforms import evaluation_view
from training.metrics import confusion_counts
from training.models.segmenter import Segmenter, normalise, upsample
from training.runtime import Runtime

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
) -> pyarrow.Table:
    """Count the confusions of this worker's images: rows rank, rank + world_size, ... of the split.

    Args:
        model_folder: The files of a published step.
        data: The split.
        config: How images are resized and cropped.
        runtime: This worker.
        batch: Images that are predicted together.

    Returns:
        Columns image (row of the split), truth and predicted (dataset ids; truth 255 is void), and
        pixels.
    """
    model, document = load_model(model_folder)
    model.to(device=runtime.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    class_ids = torch.tensor(document.class_ids, dtype=torch.uint8, device=runtime.device)
    rows = np.arange(runtime.rank, len(data.index.ids), runtime.world_size)
    return confusion(
        partial(predict, model, class_ids=class_ids), data, rows, config, runtime.device, batch
    )


def confusion(
    predictor: Callable[[Tensor], Tensor],
    data: LocalSplit,
    rows: np.ndarray,
    config: EvaluationConfig,
    device: torch.device,
    batch: int = 16,
) -> pyarrow.Table:
    """Count the confusions of the images at `rows`.

    `predictor` maps uint8 images [B, 3, H, W] to dataset ids, uint8 [B, H, W].
    """
    columns: list[list[np.ndarray]] = [[] for _ in SCHEMA]
    with data.prefetching(rows):
        for items in same_sized(views(data, rows, config), batch):
            predictions = predictor(torch.stack([item["image"] for item in items]).to(device))
            for item, predicted in zip(items, predictions.cpu().numpy(), strict=True):
                truth, guess, pixels = confusion_counts(item["mask"].numpy(), predicted)
                image = np.full(len(pixels), item["row"])
                counted = (image, truth, guess, pixels)
                for column, values in zip(columns, counted, strict=True):
                    column.append(values)
    arrays = []
    for column, kind in zip(columns, SCHEMA.types, strict=True):
        values = np.concatenate(column) if column else np.empty(0)
        arrays.append(pyarrow.array(values, kind))
    return pyarrow.table(arrays, schema=SCHEMA)


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
    logits = upsample(model(images).logits, pixels.shape[-2:])
    return class_ids[logits.argmax(1)]


def same_sized(dataset: SegmentationDataset, batch: int) -> Iterator[list[dict[str, Any]]]:
    """Yield consecutive items of one size, at most `batch` at a time.

    No image is padded or repeated.
    """
    pending: list[dict[str, Any]] = []
    for position in range(len(dataset)):
        item: dict[str, Any] = dataset[0, position]
        if pending and (len(pending) == batch or item["image"].shape != pending[0]["image"].shape):
            yield pending
            pending = []
        pending.append(item)
    if pending:
        yield pending
