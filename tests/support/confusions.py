"""Build confusion counts from label maps."""

from collections.abc import Sequence

import numpy as np

from training.metrics import Confusion, confusion_counts


def count_split(truths: Sequence[np.ndarray], predictions: Sequence[np.ndarray]) -> Confusion:
    """Return the counts of a whole split from its label maps."""
    images = []
    for image, maps in enumerate(zip(truths, predictions, strict=True)):
        truth, predicted, pixels = confusion_counts(*maps)
        images.append((np.full(len(truth), image), truth, predicted, pixels))
    return Confusion(*(np.concatenate(column) for column in zip(*images, strict=True)))
