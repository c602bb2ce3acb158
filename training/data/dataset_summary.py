"""Sum up what a dataset holds, from the rows of its index: classes, void, images in two splits."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from training.data.index_row import IndexRow


class SplitSummary(NamedTuple):
    """What a split holds."""

    images: int
    images_of: tuple[int, ...]  # images that show each class, in the order of class ids
    empty: int  # images that show no class
    void_share: float  # of the pixels


class DatasetSummary(NamedTuple):
    """What a dataset holds."""

    splits: dict[str, SplitSummary]
    # Images of the second split that are in the first, byte for byte with their masks; no entry
    # where there are none.
    shared: dict[tuple[str, str], int]


def summarise(rows: Mapping[str, Sequence[IndexRow]], classes: int) -> DatasetSummary:
    """Return what a dataset holds.

    Args:
        rows: The rows of each split.
        classes: How many classes the dataset has, without background.
    """
    splits = {split: _summarise_split(each, classes) for split, each in rows.items()}
    digests = {split: set(_digests(each)) for split, each in rows.items()}
    shared = {
        (first, second): len(digests[first] & digests[second])
        for first, second in combinations(rows, 2)
    }
    return DatasetSummary(splits, {pair: count for pair, count in shared.items() if count})


def _summarise_split(rows: Sequence[IndexRow], classes: int) -> SplitSummary:
    images_of = [0] * (classes + 1)
    for row in rows:
        for value in row.values:
            images_of[value] += 1
    pixels = sum(row.width * row.height for row in rows)
    labelled = sum(sum(row.pixels) for row in rows)
    return SplitSummary(
        images=len(rows),
        images_of=tuple(images_of[1:]),
        empty=sum(not any(row.values) for row in rows),
        void_share=1 - labelled / pixels if pixels else 0.0,
    )


def _digests(rows: Sequence[IndexRow]) -> Iterator[str]:
    return (row.row_sha256 for row in rows)
