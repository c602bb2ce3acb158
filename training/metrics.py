"""Compute scores from per-image confusion counts.

A published step is scored once, over all ground-truth classes of the dataset, including classes
that the step has not learned. The counts state how many pixels of each true class were predicted as
each class, image by image.

Papers disagree on how to score such counts. Do classes of later steps count as background? Do
images without a learned class count? Does background enter the means? A `Convention` holds these
decisions, so the numbers of every paper follow from the same counts without another evaluation.

All scores are fractions of one. A class without ground-truth pixels has no IoU (None) and enters
no mean. `training.continual_metrics` scores whole chains.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np

from training.class_groups import Background, flatten_groups
from training.config import BACKGROUND, VOID, Document

Groups = tuple[tuple[int, ...], ...]


class Convention(Document):
    """Which pixels and images count, and which means a paper prints as `old` and `all`."""

    name: str
    # Ground truth of classes that are not learned yet.
    future: Literal["background", "ignore"]
    # "with_learned_class" drops images without any class learned so far.
    images: Literal["all", "with_learned_class"]
    background_in_old: bool
    background_in_all: bool
    void: Literal["ignore", "background"] = "ignore"
    # none: the models have no background channel, and pixels of no class that they know are left
    # out.
    background: Background = "class"

    def for_models(self, background: Background) -> "Convention":
        """Return the convention as it applies to models with or without a background channel."""
        if background == "class":
            return self
        nothing_else = {
            "future": "ignore",
            "void": "ignore",
            "background_in_old": False,
            "background_in_all": False,
            "background": "none",
        }
        return self.model_copy(update=nothing_else)

    @property
    def words(self) -> str:
        """Return the convention as sentences. They are printed with every table."""
        future = "count as background" if self.future == "background" else "are left out"
        images = "all images" if self.images == "all" else "only images with a class learned so far"
        void = "are left out" if self.void == "ignore" else "count as background"
        if self.background == "none":
            return (
                f"Convention {self.name}: {images}; void pixels and pixels of classes not yet "
                "learned are left out; there is no background, and “all” is the mean of the "
                "classes."
            )
        old = "with" if self.background_in_old else "without"
        both = "with" if self.background_in_all else "without"
        return (
            f"Convention {self.name}: {images}; void pixels {void}, "
            f"pixels of classes not yet learned {future}; "
            f"“old” is {old} background, “all” is {both} background."
        )


def wilson() -> Convention:
    """Return WILSON's convention.

    Future classes are background and every image counts. Only `all` has background.
    """
    return Convention(
        name="wilson",
        future="background",
        images="all",
        background_in_old=False,
        background_in_all=True,
    )


def mib() -> Convention:
    """Return MiB's convention.

    Future classes and images without a learned class are left out. No mean has background.
    """
    return Convention(
        name="mib",
        future="ignore",
        images="with_learned_class",
        background_in_old=False,
        background_in_all=False,
    )


def plop() -> Convention:
    """Return PLOP's convention.

    Future classes are background and images without a learned class are left out. Every mean
    except `new` has background.
    """
    return Convention(
        name="plop",
        future="background",
        images="with_learned_class",
        background_in_old=True,
        background_in_all=True,
    )


def plop_ade() -> Convention:
    """Return PLOP's convention on ADE20K, where void pixels are background, too."""
    return plop().model_copy(update={"name": "plop_ade", "void": "background"})


ConventionName = Literal["wilson", "mib", "plop", "plop_ade"]
CONVENTIONS: dict[ConventionName, Convention] = {
    "wilson": wilson(),
    "mib": mib(),
    "plop": plop(),
    "plop_ade": plop_ade(),
}


class Confusion(NamedTuple):
    """Pixel counts of a split as parallel arrays, one entry per image and pair of classes."""

    image: np.ndarray
    truth: np.ndarray  # dataset class id, 0 background, 255 void
    predicted: np.ndarray  # dataset class id, 0 background
    pixels: np.ndarray


class Scores(Document):
    """Scores of one step under one convention (`training.score_definitions`)."""

    images: int
    # By dataset class id, background first if the models have it, then in learning order.
    iou: dict[int, float | None]
    miou_groups: tuple[float | None, ...]  # of each class group, without background
    miou_all: float | None
    miou_all_without_background: float | None
    miou_old: float | None  # None after step 0
    miou_old_with_background: float | None
    miou_new: float | None
    miou_base: float | None
    miou_base_with_background: float | None
    miou_added: float | None
    pixel_accuracy: float | None


def confusion_counts(
    truth: np.ndarray, predicted: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count the pairs of true and predicted class in two label maps.

    Args:
        truth: True classes, uint8 [H, W].
        predicted: Predicted classes, uint8 [H, W].

    Returns:
        The pairs that occur, sorted, as (truth uint8, predicted uint8, pixels uint32).

    Raises:
        ValueError: The maps differ in shape or are not uint8.
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
    """Score a step.

    Args:
        confusion: The pixel counts of the step.
        groups: Dataset class ids learned so far, in learning order. The last group is the newest.
        convention: What to count.

    Raises:
        ValueError: A pixel was predicted as a class that is in none of the groups.
    """
    matrix, images = confusion_matrix(confusion, groups, convention)
    right = np.diag(matrix)
    union = matrix.sum(0) + matrix.sum(1) - right
    total = matrix.sum()
    seen = (BACKGROUND, *flatten_groups(groups))
    iou = {
        class_id: float(right[i] / union[i]) if matrix[i].any() else None
        for i, class_id in enumerate(seen)
    }

    def miou(classes: Iterable[int]) -> float | None:
        return mean_of_known(iou[class_id] for class_id in classes)

    old = flatten_groups(groups[:-1])
    has_background = convention.background == "class"
    if not has_background:
        del iou[BACKGROUND]
    return Scores(
        images=images,
        iou=iou,
        miou_groups=tuple(miou(group) for group in groups),
        miou_all=miou(iou),
        miou_all_without_background=miou(seen[1:]),
        miou_old=miou(old),
        miou_old_with_background=miou((BACKGROUND, *old)) if old and has_background else None,
        miou_new=miou(groups[-1]),
        miou_base=miou(groups[0]),
        miou_base_with_background=miou((BACKGROUND, *groups[0])) if has_background else None,
        miou_added=miou(flatten_groups(groups[1:])),
        pixel_accuracy=float(right.sum() / total) if total else None,
    )


def confusion_matrix(
    confusion: Confusion, groups: Groups, convention: Convention
) -> tuple[np.ndarray, int]:
    """Sum the pixel counts over the images that count.

    Args:
        confusion: The pixel counts of a step.
        groups: Dataset class ids learned so far, in learning order.
        convention: What to count.

    Returns:
        The matrix, int64 [1 + C, 1 + C] with truth in rows and prediction in columns, and the
        number of images counted. Index 0 is background and 1 + i is the i-th of the C classes.

    Raises:
        ValueError: A pixel was predicted as a class that is in none of the groups.
    """
    classes = flatten_groups(groups)
    position = np.full(256, -1)
    position[[BACKGROUND, *classes]] = np.arange(1 + len(classes))
    column = position[confusion.predicted]
    if (column < 0).any():
        stranger = int(confusion.predicted[column < 0][0])
        raise ValueError(
            f"pixels were predicted as class {stranger}, "
            f"which is not among the classes learned so far {classes}"
        )
    if convention.future == "background":
        position = np.where(position < 0, 0, position)
    position[VOID] = 0 if convention.void == "background" else -1
    if convention.background == "none":
        position[BACKGROUND] = -1
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


def mean_of_known(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that exist, or None when there are none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
