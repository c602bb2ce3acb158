"""From per-image confusion counts to every number that is shown, each under a convention that says what was counted.

A published step is scored once, over all the dataset's ground-truth classes, whatever it has learned: how many pixels of
each truth were predicted as each class, image by image. Papers then disagree about the rest: whether classes of later steps
count as background, whether images without a learned class count at all, whether background enters the means. A
`Convention` holds those decisions, so that any paper's numbers follow from the same counts and nothing is evaluated twice.

All scores are fractions of one. A class without ground-truth pixels has no IoU (None) and enters no mean.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from training.config import BACKGROUND, VOID, Document, flatten_groups

Groups = tuple[tuple[int, ...], ...]

DEFINITIONS = {
    "iou": "intersection over union: pixels rightly predicted as the class, over pixels that are it in truth or in prediction",
    "miou_all": "mean IoU of background and all classes learned so far",
    "miou_all_without_background": "mean IoU of all classes learned so far, background left out",
    "miou_old": "mean IoU of the classes learned before this step, background left out",
    "miou_old_with_background": "mean IoU of background and the classes learned before this step",
    "miou_new": "mean IoU of the classes this step brought",
    "miou_base": "mean IoU of the classes of step 0, background left out",
    "miou_base_with_background": "mean IoU of background and the classes of step 0",
    "miou_added": "mean IoU of the classes of all steps after step 0",
    "pixel_accuracy": "share of the scored pixels, background included, that got the right class",
    "forgetting_first_minus_last": "IoU right after the class was learned minus IoU now; mean over earlier steps' classes",
    "forgetting_best_minus_last": "best IoU after any earlier step minus IoU now; mean over earlier steps' classes",
    "backward_transfer": "mIoU of a group now minus right after it was learned; mean over earlier steps' groups",
    "average_over_steps": "mean of the steps' mIoU over all classes learned so far, background included",
    "average_over_steps_without_background": "mean of the steps' mIoU over all classes learned so far, background left out",
}


class Convention(Document):
    """What is counted, and which means a paper prints as `old` and `all`. Void never counts, in any of them."""

    name: str
    future: Literal["background", "ignore"]  # ground truth of classes not yet learned
    images: Literal[
        "all", "with_learned_class"
    ]  # the second drops images without any class learned so far
    background_in_old: bool
    background_in_all: bool

    @property
    def words(self) -> str:
        """The convention as sentences, to be printed with every table."""
        future = "count as background" if self.future == "background" else "are left out"
        images = "all images" if self.images == "all" else "only images with a class learned so far"
        old = "with" if self.background_in_old else "without"
        both = "with" if self.background_in_all else "without"
        return (
            f"Convention {self.name}: {images}; void pixels are left out, pixels of classes not yet learned {future}; "
            f"“old” is {old} background, “all” is {both} background."
        )


def wilson() -> Convention:
    """WILSON: future classes are background, every image counts; `old` without background, `all` with it."""
    return Convention(
        name="wilson",
        future="background",
        images="all",
        background_in_old=False,
        background_in_all=True,
    )


def mib() -> Convention:
    """MiB: future classes are left out, and images without a learned class too; no mean has background."""
    return Convention(
        name="mib",
        future="ignore",
        images="with_learned_class",
        background_in_old=False,
        background_in_all=False,
    )


def plop() -> Convention:
    """PLOP: future classes are background, images without a learned class are dropped; every mean but `new` has background."""
    return Convention(
        name="plop",
        future="background",
        images="with_learned_class",
        background_in_old=True,
        background_in_all=True,
    )


class Confusion(NamedTuple):
    """How many pixels of an image are `truth` and were predicted as `predicted`: parallel arrays, one entry per triple."""

    image: np.ndarray
    truth: np.ndarray  # dataset id, 0 background, 255 void
    predicted: np.ndarray  # dataset id, 0 background
    pixels: np.ndarray


class Scores(Document):
    """One step's scores under one convention; what each means is in `DEFINITIONS`."""

    images: int
    iou: dict[int, float | None]  # by dataset class id, in learning order, background 0 first
    miou_groups: tuple[float | None, ...]  # mean IoU of each class group, without background
    miou_all: float | None
    miou_all_without_background: float | None
    miou_old: float | None  # None after step 0: nothing is old yet
    miou_old_with_background: float | None
    miou_new: float | None
    miou_base: float | None
    miou_base_with_background: float | None
    miou_added: float | None
    pixel_accuracy: float | None


class Retention(Document):
    """How one quantity fared from the step that brought it to the last: None until a later step exists."""

    forgetting_first_minus_last: float | None
    forgetting_best_minus_last: float | None
    backward_transfer: float | None


class Continual(Document):
    """Scores of a whole chain; what each means is in `DEFINITIONS`."""

    classes: dict[int, Retention]  # by dataset class id, background included
    groups: tuple[Retention, ...]  # of each group's mean IoU
    forgetting_first_minus_last: float | None
    forgetting_best_minus_last: float | None
    backward_transfer: float | None
    average_over_steps: float | None
    average_over_steps_without_background: float | None


def confusion_counts(
    truth: np.ndarray, predicted: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count the (truth, predicted) pairs of two label maps.

    Both uint8 [H, W]. Returns the pairs that occur, sorted, as (truth uint8, predicted uint8, pixels uint32).
    Raises ValueError when the maps differ in shape or hold anything but uint8.
    """
    if truth.shape != predicted.shape or truth.dtype != np.uint8 or predicted.dtype != np.uint8:
        raise ValueError(
            f"label maps must be uint8 and of one shape: truth is {truth.dtype} {truth.shape}, "
            f"prediction {predicted.dtype} {predicted.shape}"
        )
    counts = np.bincount((truth.astype(np.uint16) << 8 | predicted).ravel(), minlength=1 << 16)
    pairs = np.flatnonzero(counts)
    return (
        (pairs >> 8).astype(np.uint8),
        (pairs & 255).astype(np.uint8),
        counts[pairs].astype(np.uint32),
    )


def score(confusion: Confusion, groups: Groups, convention: Convention) -> Scores:
    """Scores of a step that has learned `groups` (dataset ids, in learning order; the last group is the newest).

    Raises ValueError when a pixel was predicted as a class that is in none of the groups.
    """
    matrix, images = confusion_matrix(confusion, groups, convention)
    right, union = np.diag(matrix), matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
    seen = (BACKGROUND, *flatten_groups(groups))
    iou = {
        class_id: float(right[i] / union[i]) if matrix[i].any() else None  # no ground truth, no IoU
        for i, class_id in enumerate(seen)
    }

    def miou(classes: Iterable[int]) -> float | None:
        return _mean(iou[class_id] for class_id in classes)

    old, total = flatten_groups(groups[:-1]), matrix.sum()
    return Scores(
        images=images,
        iou=iou,
        miou_groups=tuple(miou(group) for group in groups),
        miou_all=miou(seen),
        miou_all_without_background=miou(seen[1:]),
        miou_old=miou(old),
        miou_old_with_background=miou((BACKGROUND, *old)) if old else None,
        miou_new=miou(groups[-1]),
        miou_base=miou(groups[0]),
        miou_base_with_background=miou((BACKGROUND, *groups[0])),
        miou_added=miou(flatten_groups(groups[1:])),
        pixel_accuracy=float(right.sum() / total) if total else None,
    )


def confusion_matrix(
    confusion: Confusion, groups: Groups, convention: Convention
) -> tuple[np.ndarray, int]:
    """Counted pixels, int64 [1 + C, 1 + C] with truth in rows and prediction in columns, and the number of images counted.

    Index 0 is background, 1 + i the i-th of the C classes of `groups` in learning order.
    """
    classes = flatten_groups(groups)
    position = np.full(256, -1)
    position[[BACKGROUND, *classes]] = np.arange(1 + len(classes))
    column = position[confusion.predicted]
    if (column < 0).any():
        stranger = int(confusion.predicted[column < 0][0])
        raise ValueError(
            f"pixels were predicted as class {stranger}, which is not among the classes learned so far {classes}"
        )
    if convention.future == "background":
        position = np.where(position < 0, 0, position)
    position[VOID] = -1
    row = position[confusion.truth]
    counted = row >= 0
    if convention.images == "with_learned_class":
        counted &= np.isin(confusion.image, confusion.image[row > 0])
        images = len(np.unique(confusion.image[counted]))
    else:
        images = len(np.unique(confusion.image))
    matrix = np.zeros((1 + len(classes),) * 2, np.int64)
    np.add.at(matrix, (row[counted], column[counted]), confusion.pixels[counted].astype(np.int64))
    return matrix, images


class PredictionBreakdown(Document):
    """What the ground-truth pixels of one or several classes were predicted as: shares that add up to one."""

    right: float
    background: float
    new: float  # classes that the last step brought
    other_old: float


def prediction_breakdown(
    matrix: np.ndarray, groups: Groups, classes: Sequence[int]
) -> PredictionBreakdown | None:
    """Where the pixels of `classes` (dataset ids) went, pixels of all of them pooled; None when they have none.

    `matrix`: as `confusion_matrix` returns it for `groups`. Of background's own pixels, `right` is background.
    """
    order = (BACKGROUND, *flatten_groups(groups))
    newest = len(order) - len(groups[-1])
    rows = [order.index(class_id) for class_id in classes]
    total = int(matrix[rows].sum())
    if not total:
        return None
    right = int(sum(matrix[row, row] for row in rows))
    background = int(sum(matrix[row, 0] for row in rows if row))
    new = int(
        sum(matrix[row, newest:].sum() - (matrix[row, row] if row >= newest else 0) for row in rows)
    )
    other = total - right - background - new
    return PredictionBreakdown(
        right=right / total, background=background / total, new=new / total, other_old=other / total
    )


def retention(values: Sequence[float | None]) -> Retention:
    """Of one quantity after each step of a chain, None before it was learned (and throughout, when it has no ground truth).

    first - last: from the step that brought it to the last. best - last: from its best earlier step, so negative when the
    last step is the best of all. backward transfer: last - first (Lopez-Paz and Ranzato, 2017).
    """
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return Retention(
            forgetting_first_minus_last=None,
            forgetting_best_minus_last=None,
            backward_transfer=None,
        )
    first, best, last = known[0], max(known[:-1]), known[-1]
    return Retention(
        forgetting_first_minus_last=first - last,
        forgetting_best_minus_last=best - last,
        backward_transfer=last - first,
    )


def continual(steps: Sequence[Scores]) -> Continual:
    """Scores of a chain from the scores after each of its steps, in order."""
    last = steps[-1]
    classes = {
        class_id: retention([step.iou.get(class_id) for step in steps]) for class_id in last.iou
    }
    groups = tuple(
        retention([step.miou_groups[g] if g < len(step.miou_groups) else None for step in steps])
        for g in range(len(last.miou_groups))
    )
    learned = [classes[class_id] for class_id in classes if class_id != BACKGROUND]
    return Continual(
        classes=classes,
        groups=groups,
        forgetting_first_minus_last=_mean(each.forgetting_first_minus_last for each in learned),
        forgetting_best_minus_last=_mean(each.forgetting_best_minus_last for each in learned),
        backward_transfer=_mean(group.backward_transfer for group in groups),
        average_over_steps=_mean(step.miou_all for step in steps),
        average_over_steps_without_background=_mean(
            step.miou_all_without_background for step in steps
        ),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
