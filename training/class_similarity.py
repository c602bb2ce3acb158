"""Build the table of class similarities that RaSP's semantic prior reads (Roy et al., 2023).

A similarity is relative to background. 2 means that two classes are twice as similar to each other
as the new class is to background. Pairs that are not given have the similarity 1, like background.
RaSP takes similarities from word embeddings. Here they are part of the method's document.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

# (class id, class id, similarity); the order of the two classes does not matter.
Pairs = tuple[tuple[int, int, float], ...]


def similarity_matrix(
    pairs: Pairs, new_classes: Sequence[int], previous_classes: Sequence[int]
) -> Tensor:
    """Return the similarities of new and previous classes as a matrix.

    Args:
        pairs: The given similarities, by the dataset's class ids.
        new_classes: Class ids in channel order.
        previous_classes: Class ids in channel order, without background.

    Returns:
        [new classes, previous classes + 1]. Column 0, background, is 1 by definition.
    """
    given = {frozenset((first, second)): value for first, second, value in pairs}
    rows = []
    for new in new_classes:
        similarities = [given.get(frozenset((new, old)), 1.0) for old in previous_classes]
        rows.append([1.0, *similarities])
    return torch.tensor(rows)
