"""Build confusion counts from label maps or rows, and write them as evaluations store them."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
import pyarrow
import pyarrow.parquet

from training.metrics import Confusion, confusion_counts

COLUMN_TYPES = (pyarrow.uint32(), pyarrow.uint8(), pyarrow.uint8(), pyarrow.uint32())


def count_split(truths: Sequence[np.ndarray], predictions: Sequence[np.ndarray]) -> Confusion:
    """Return the counts of a whole split from its label maps."""
    images = []
    for image, maps in enumerate(zip(truths, predictions, strict=True)):
        truth, predicted, pixels = confusion_counts(*maps)
        images.append((np.full(len(truth), image), truth, predicted, pixels))
    return Confusion(*(np.concatenate(column) for column in zip(*images, strict=True)))


def counts_parquet(confusion: Confusion) -> bytes:
    """Return confusion counts as the Parquet file of an evaluation."""
    columns = zip(confusion, COLUMN_TYPES, strict=True)
    arrays = [pyarrow.array(column, kind) for column, kind in columns]
    out = BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(arrays, names=list(Confusion._fields)), out)
    return out.getvalue()


def confusion_of_rows(rows: Sequence[tuple[int, int, int, int]]) -> Confusion:
    """Return counts from rows of (image, truth, predicted, pixels)."""
    return Confusion(*np.array(rows).T)


def made_up_confusion(
    groups: tuple[tuple[int, ...], ...], classes: int, kept: float, seed: int
) -> Confusion:
    """Return counts of 60 images with background, void and one to three classes each.

    Args:
        groups: Dataset ids of the classes learned so far, group by group.
        classes: Number of classes of the dataset.
        kept: Share of the pixels of old classes that are still predicted right.
        seed: Seed of the random numbers.
    """
    rng = np.random.default_rng([seed, len(groups), int(1000 * kept)])
    *earlier, new = groups
    old = [class_id for group in earlier for class_id in group]
    learned = [*old, *new]
    rows = []
    for image in range(60):
        rows.append((image, 255, 0, 40))
        rows.append((image, 0, 0, 3000))
        rows.append((image, 0, int(rng.choice(learned)), int(rng.integers(20, 200))))
        shown = rng.choice(np.arange(1, classes + 1), rng.integers(1, 4), replace=False)
        for truth in shown.tolist():
            pixels = int(rng.integers(200, 500))
            share = rng.uniform(0.9, 1.0) * (kept if truth in old else 0.85)
            right = round(pixels * share) if truth in learned else 0
            lost = pixels - right
            shares = (
                (truth, right),
                (0, lost // 2),
                (int(rng.choice(new)), lost // 3),
                (int(rng.choice(learned)), lost // 6),
            )
            rows += [(image, truth, predicted, count) for predicted, count in shares if count]
    return confusion_of_rows(rows)
