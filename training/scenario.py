"""Class groups, settings, label maps and image selection: pure functions of a label matrix.

The rules reproduce, bit for bit, the index files that the papers ship. With L_i the classes present in image i, step t of
groups C_0..C_T selects
    overlap   images with L_i & C_t non-empty;
    disjoint  the same, and L_i & C_s empty for every later group s > t.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import model_validator

from training.config import BACKGROUND, VOID, Document, InputError, Task

Setting = Literal["disjoint", "overlap"]


class Scenario(Document):
    """A dataset, its classes in the order they are learned, and what each step may see."""

    dataset: str
    groups: tuple[tuple[str, ...], ...]  # class names
    setting: Setting = "overlap"
    supervision: Literal["pixel", "image"] = "image"  # of the steps after the first, which always has masks
    labels: Literal["new", "seen"] = "new"
    void: Literal["background", "ignore"] = "background"

    @model_validator(mode="after")
    def _each_class_once(self) -> "Scenario":
        names = [name for group in self.groups for name in group]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"class {twice[0]!r} stands in the groups twice; each class is learned once")
        if not self.groups or not all(self.groups):
            raise InputError("a scenario needs at least one group, and each group at least one class")
        return self

    @property
    def title(self) -> str:
        """Name of the scenario for people: `voc 15-1 overlap`; methods and kinds of labels meet in it."""
        sizes = [len(group) for group in self.groups]
        later = sizes[1:]
        split = f"{sizes[0]}-{later[0]}" if len(set(later)) == 1 else "-".join(map(str, sizes))
        return f"{self.dataset} {split} {self.setting}"


def split_groups(split: str, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Class groups of an `A-B` split: the first A names, then B at a time (`15-1` of 20 names has six groups).

    Raises InputError when the names cannot be divided so.
    """
    try:
        base, increment = (int(part) for part in split.split("-"))
    except ValueError:
        raise InputError(f"split {split!r} is not of the form A-B, such as 15-5 or 15-1") from None
    rest = len(names) - base
    if base < 1 or increment < 1 or rest < 0 or rest % increment:
        raise InputError(
            f"split {split!r} does not divide {len(names)} classes: B must divide what A leaves of them, and both be at least 1"
        )
    starts = range(base, len(names), increment)
    return (tuple(names[:base]), *(tuple(names[s : s + increment]) for s in starts))


def select_images(labels: np.ndarray, groups: Sequence[Sequence[int]], step: int, setting: Setting) -> np.ndarray:
    """Sorted row numbers of the images that step `step` trains on.

    `labels`: bool [images, classes], column c - 1 for dataset class id c. `groups`: dataset class ids of every step.
    """
    columns = [np.asarray(group) - 1 for group in groups]
    chosen = labels[:, columns[step]].any(1)
    if setting == "disjoint":
        for later in columns[step + 1 :]:
            chosen &= ~labels[:, later].any(1)
    return np.flatnonzero(chosen)


def label_map(task: Task) -> np.ndarray:
    """Dataset value -> training target, uint8 [256]: labelled classes to their channel, all else to background.

    Channels follow the order the classes were learned in; void becomes background or 255 as the task says.
    """
    table = np.full(256, BACKGROUND, np.uint8)
    labelled = task.new_classes if task.labels == "new" else task.classes
    for class_id in labelled:
        table[class_id] = 1 + task.classes.index(class_id)
    table[VOID] = VOID if task.void == "ignore" else BACKGROUND
    return table


def image_labels(task: Task, labels: np.ndarray) -> np.ndarray:
    """What a weak step may know of each image, float32 [images, channels - 1] in channel order, without background.

    `labels`: bool [images, classes] of the whole dataset. Previous classes are zero unless the task labels all seen ones.
    """
    columns = np.asarray(task.classes) - 1
    known = labels[:, columns].astype(np.float32)
    if task.labels == "new":
        known[:, : len(task.previous_classes)] = 0
    return known
