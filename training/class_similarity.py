"""How alike classes are: the table that RaSP's semantic prior reads (Roy et al., 2023).

A similarity is relative to background: 2 says that two classes are twice as alike as either and background. Pairs that
no table names are as (un)like as background, 1. RaSP takes its similarities from word embeddings; here they are part of
the document, and PASCAL VOC's own grouping of its classes gives them without any other model.
"""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

Pairs = tuple[tuple[int, int, float], ...]  # (class id, class id, similarity), in either order

# Everingham et al., "The PASCAL Visual Object Classes Challenge" (2010), Table 1.
VOC_GROUPS = {
    "person": ("person",),
    "animals": ("bird", "cat", "cow", "dog", "horse", "sheep"),
    "vehicles": ("aeroplane", "bicycle", "boat", "bus", "car", "motorbike", "train"),
    "indoor": ("bottle", "chair", "diningtable", "pottedplant", "sofa", "tvmonitor"),
}


def voc_similarity(classes: Sequence[str], alike: float) -> Pairs:
    """Pairs of `classes` (names of dataset ids 1, 2, ...) that VOC puts into one group, each `alike` times background."""
    group = {name: title for title, names in VOC_GROUPS.items() for name in names}
    numbered = list(enumerate(classes, 1))
    return tuple(
        (a, b, alike)
        for (a, x), (b, y) in combinations(numbered, 2)
        if x in group and group[x] == group.get(y)
    )


def similarity_matrix(
    pairs: Pairs, new_classes: Sequence[int], previous_classes: Sequence[int]
) -> Tensor:
    """[new classes, previous classes + 1] for dataset ids in channel order; column 0 is background, 1 by definition."""
    table = {frozenset((a, b)): value for a, b, value in pairs}
    rows = [
        [1.0, *(table.get(frozenset((new, old)), 1.0) for old in previous_classes)]
        for new in new_classes
    ]
    return torch.tensor(rows)
