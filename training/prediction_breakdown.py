"""Break down what the pixels of some classes were predicted as.

The shares separate two causes of forgetting. Pixels of old classes that turn into background show
background shift. Pixels that turn into new classes show the bias towards them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from training.config import BACKGROUND, Document, flatten_groups
from training.metrics import Groups


class PredictionBreakdown(Document):
    """What the ground-truth pixels of some classes were predicted as: shares that add up to one."""

    right: float
    background: float
    new: float  # classes that the last step brought
    other_old: float


class OldClasses(NamedTuple):
    """What the pixels of old classes were predicted as. Classes without pixels have None."""

    pooled: PredictionBreakdown | None  # of all old classes together
    by_class: dict[int, PredictionBreakdown | None]  # by dataset class id; empty after step 0


def prediction_breakdown(
    matrix: np.ndarray, groups: Groups, classes: Sequence[int]
) -> PredictionBreakdown | None:
    """Return what the pixels of some classes were predicted as, pooled over these classes.

    Args:
        matrix: The counts that `confusion_matrix` returns for `groups`.
        groups: Dataset class ids learned so far, in learning order.
        classes: Dataset ids of the classes in question. The `right` share of background is
            background.

    Returns:
        The shares, or None when the classes have no pixels.
    """
    order = (BACKGROUND, *flatten_groups(groups))
    newest = len(order) - len(groups[-1])
    rows = [order.index(class_id) for class_id in classes]
    total = int(matrix[rows].sum())
    if not total:
        return None
    right = background = new = 0
    for row in rows:
        right += int(matrix[row, row])
        if row:
            background += int(matrix[row, 0])
        new += int(matrix[row, newest:].sum())
        if row >= newest:
            new -= int(matrix[row, row])
    other = total - right - background - new
    return PredictionBreakdown(
        right=right / total, background=background / total, new=new / total, other_old=other / total
    )


def break_down_old_classes(matrix: np.ndarray, groups: Groups) -> OldClasses:
    """Return what the pixels of the classes of earlier steps were predicted as.

    Args:
        matrix: The counts that `confusion_matrix` returns for `groups`.
        groups: Dataset class ids learned so far, in learning order. The last group is the newest.
    """
    old = flatten_groups(groups[:-1])
    by_class = {class_id: prediction_breakdown(matrix, groups, [class_id]) for class_id in old}
    return OldClasses(prediction_breakdown(matrix, groups, old), by_class)
