"""Class groups, settings, label maps and image selection: pure functions of a label matrix.

The rules reproduce, bit for bit, the index files that the papers ship. With L_i the classes present in image i, step t of
groups C_0..C_T selects
    overlap   images with L_i & C_t non-empty;
    disjoint  the same, and L_i & C_s empty for every later group s > t.

What is drawn from these (a share of them, a memory of earlier ones) is drawn in the order of the images' hashed ids:
the same on every machine, and a smaller draw is part of a larger one.
"""

import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from training.config import BACKGROUND, VOID, Document, InputError, Task, flatten_groups
from training.protocols import coco_to_voc_groups

Setting = Literal["disjoint", "overlap"]


class Scenario(Document):
    """A dataset, its classes in the order they are learned, and what each step may see."""

    dataset: str
    groups: tuple[tuple[str, ...], ...]  # class names
    setting: Setting = "overlap"
    supervision: Literal["pixel", "image"] = (
        "image"  # of the steps after the first, which always has masks
    )
    labels: Literal["new", "seen"] = "new"
    void: Literal["background", "ignore"] = "background"
    # Step 0 also trains on images that show no class at all, which COCO-to-VOC's numbers in the papers include.
    empty_images: bool = Field(default=False, json_schema_extra={"legacy": False})
    image_share: float = Field(
        default=1.0, gt=0, le=1, json_schema_extra={"legacy": 1.0}
    )  # of each later step's images
    memory: int = Field(
        default=0, ge=0, json_schema_extra={"legacy": 0}
    )  # images of earlier steps that each later one keeps
    # Digest of published lists of each step's images, for protocols without a rule; None selects by `setting`.
    selections: str | None = Field(default=None, json_schema_extra={"legacy": None})

    @model_validator(mode="after")
    def _each_class_once(self) -> "Scenario":
        names = flatten_groups(self.groups)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(
                f"class {twice[0]!r} stands in the groups twice; each class is learned once"
            )
        if not self.groups or not all(self.groups):
            raise InputError(
                "a scenario needs at least one group, and each group at least one class"
            )
        return self

    @property
    def title(self) -> str:
        """Name of the scenario for people: `voc 15-1 overlap`; methods and kinds of labels meet in it."""
        sizes = [len(group) for group in self.groups]
        later = sizes[1:]
        split = f"{sizes[0]}-{later[0]}" if len(set(later)) == 1 else "-".join(map(str, sizes))
        return f"{self.dataset} {split} {self.setting if self.selections is None else 'listed'}"


def split_groups(split: str, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Class groups of an `A-B` split: the first A names, then B at a time (`15-1` of 20 names has six groups).

    `coco-voc` are the groups of COCO-to-VOC, `coco-voc-5` the same with five classes at a time (`training.protocols`).
    Raises InputError when the names cannot be divided so.
    """
    if named := re.fullmatch(r"coco-voc(?:-(\d+))?", split):
        return coco_to_voc_groups(names, int(named[1] or 20))
    try:
        base, increment = (int(part) for part in split.split("-"))
    except ValueError:
        raise InputError(
            f"split {split!r} is not of the form A-B, such as 15-5 or 15-1, nor coco-voc"
        ) from None
    rest = len(names) - base
    if base < 1 or increment < 1 or rest < 0 or rest % increment:
        raise InputError(
            f"split {split!r} does not divide {len(names)} classes: B must divide what A leaves of them, and both be at least 1"
        )
    starts = range(base, len(names), increment)
    return (tuple(names[:base]), *(tuple(names[s : s + increment]) for s in starts))


def select_images(
    labels: np.ndarray, groups: Sequence[Sequence[int]], step: int, setting: Setting
) -> np.ndarray:
    """Sorted row numbers of the images that step `step` trains on.

    `labels`: bool [images, classes], column c - 1 for dataset class id c. `groups`: dataset class ids of every step.
    """
    columns = [np.asarray(group) - 1 for group in groups]
    chosen = labels[:, columns[step]].any(1)
    if setting == "disjoint":
        for later in columns[step + 1 :]:
            chosen &= ~labels[:, later].any(1)
    return np.flatnonzero(chosen)


def hashed_order(rows: np.ndarray, ids: Sequence[str]) -> np.ndarray:
    """The rows in the order of the sha256 of their images' ids: as good as random, and the same everywhere."""
    return np.array(
        sorted(rows.tolist(), key=lambda row: sha256(ids[int(row)].encode()).digest()),
        dtype=np.int64,
    )


def keep_share(rows: np.ndarray, ids: Sequence[str], share: float) -> np.ndarray:
    """`share` of the rows (at least one), sorted; a smaller share is part of a larger one."""
    return np.sort(hashed_order(rows, ids)[: max(1, round(share * len(rows)))])


def choose_memory(
    labels: np.ndarray,
    previous_classes: Sequence[int],
    candidates: np.ndarray,
    ids: Sequence[str],
    size: int,
) -> np.ndarray:
    """Rows of `size` images of previous classes, sorted; all candidates when they are fewer.

    Classes take turns in the order they were learned, each taking its first image, in hashed order, that none has taken.
    `labels`: bool [images, classes]. `candidates`: rows of the images that earlier steps trained on.
    """
    order = hashed_order(candidates, ids)
    queues = [order[labels[order, class_id - 1]].tolist()[::-1] for class_id in previous_classes]
    chosen: set[int] = set()
    while len(chosen) < size and any(queues):
        for queue in queues:
            while queue and queue[-1] in chosen:
                queue.pop()
            if queue and len(chosen) < size:
                chosen.add(queue.pop())
    return np.array(sorted(chosen), dtype=np.int64)


def label_map(task: Task) -> np.ndarray:
    """Dataset value -> training target, uint8 [256]: labelled classes to their channel, all else to background.

    Channels follow the order the classes were learned in; void becomes background or 255 as the task says.
    """
    return _label_map(task, task.new_classes if task.labels == "new" else task.classes)


def memory_label_map(task: Task) -> np.ndarray:
    """As `label_map`, for the images that are kept from earlier steps: they know the previous classes, and no new one."""
    return _label_map(task, task.previous_classes)


def _label_map(task: Task, labelled: Sequence[int]) -> np.ndarray:
    table = np.full(256, BACKGROUND, np.uint8)
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


def memory_image_labels(task: Task, labels: np.ndarray) -> np.ndarray:
    """As `image_labels`, for the images that are kept from earlier steps: they know the previous classes, and no new one."""
    known = labels[:, np.asarray(task.classes) - 1].astype(np.float32)
    known[:, len(task.previous_classes) :] = 0
    return known
