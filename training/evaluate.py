"""Score published files: rebuild the model from its folder, predict every image once, keep what it confused with what.

The result holds, per image, how many pixels of each ground-truth class (of the whole dataset, void included) were predicted
as each class the model knows. Every number shown anywhere is derived from it (`training.metrics`), so no convention about
void, background or future classes enters here.
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
    """Confusion counts of this worker's images: rows rank, rank + world_size, ... of the split, each exactly once.

    Columns: image (row of the split), truth and predicted (dataset ids; truth 255 is void), pixels.
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
    """Confusion counts of the images at `rows`; `predictor` maps uint8 [B, 3, H, W] to dataset ids, uint8 [B, H, W]."""
    columns: list[list[np.ndarray]] = [[], [], [], []]
    with data.prefetching(rows):
        for items in same_sized(views(data, rows, config), batch):
            predictions = predictor(torch.stack([item["image"] for item in items]).to(device))
            for item, predicted in zip(items, predictions.cpu().numpy(), strict=True):
                truth, guess, pixels = confusion_counts(item["mask"].numpy(), predicted)
                image = np.full(len(pixels), item["row"])
                for column, values in zip(columns, (image, truth, guess, pixels), strict=True):
                    column.append(values)
    arrays = [np.concatenate(column) if column else np.empty(0) for column in columns]
    return pyarrow.table(
        [pyarrow.array(a, t) for a, t in zip(arrays, SCHEMA.types, strict=True)], schema=SCHEMA
    )


def views(data: LocalSplit, rows: np.ndarray, config: EvaluationConfig) -> SegmentationDataset:
    """Images and masks (dataset ids, 255 void) of `rows` as an evaluation sees them."""
    transform = partial(evaluation_view, config=config)
    return SegmentationDataset(
        data, rows, transform=transform, label_map=np.arange(256, dtype=np.uint8), seed=0
    )


@torch.inference_mode()
def predict(model: Segmenter, pixels: Tensor, class_ids: Tensor) -> Tensor:
    """Dataset id of the likeliest class at each pixel, uint8 [B, H, W], of uint8 images [B, 3, H, W]."""
    dtype = next(model.parameters()).dtype
    images = normalise(pixels, dtype).contiguous(memory_format=torch.channels_last)
    logits = upsample(model(images).logits, pixels.shape[-2:])
    return class_ids[logits.argmax(1)]


def same_sized(dataset: SegmentationDataset, batch: int) -> Iterator[list[dict[str, Any]]]:
    """Consecutive items of one size, at most `batch` at a time; no image is padded or repeated."""
    pending: list[dict[str, Any]] = []
    for position in range(len(dataset)):
        item: dict[str, Any] = dataset[0, position]
        if pending and (len(pending) == batch or item["image"].shape != pending[0]["image"].shape):
            yield pending
            pending = []
        pending.append(item)
    if pending:
        yield pending
