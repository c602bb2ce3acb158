"""Select each step's images and map its labels, by pure functions of a matrix of image labels.

The rules reproduce, bit for bit, the index files that the papers ship. With L_i the classes present
in image i, step t of groups C_0..C_T selects
    overlap   images with L_i & C_t non-empty;
    disjoint  the same, and L_i & C_s empty for every later group s > t.
A third setting, which ships no lists, gives each image to one step:
    partitioned  images whose own class is in C_t, drawn uniformly among those of L_i that a group
                 has.

A share of these images, or a memory of earlier ones, is drawn in the order of the images' hashed
ids. The draw is the same on every machine, and a smaller draw is part of a larger one.
"""

import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from training.class_groups import Background
from training.config import BACKGROUND, VOID, Document, InputError, Task, flatten_groups
from training.protocols import coco_to_voc_groups

Setting = Literal["disjoint", "overlap", "partitioned"]


class Scenario(Document):
    """A dataset, its classes in the order they are learned, and what each step may see."""

    dataset: str
    groups: tuple[tuple[str, ...], ...]  # class names
    setting: Setting = "overlap"
    # Of the steps after the first.
    supervision: Literal["pixel", "image"] = "image"
    # Of step 0. With image labels here and there, no step of the chain sees a mask.
    base_supervision: Literal["pixel", "image"] = Field(
        default="pixel", json_schema_extra={"legacy": "pixel"}
    )
    labels: Literal["new", "seen"] = "new"
    void: Literal["background", "ignore"] = "background"
    # none: the model has no channel for background, and pixels of classes that a step's labels do
    # not name are void to it. For datasets that name a class for every pixel, such as Cityscapes.
    background: Background = Field(default="class", json_schema_extra={"legacy": "class"})
    # Whether step 0 also trains on images that show no class at all, as COCO-to-VOC in the papers.
    empty_images: bool = Field(default=False, json_schema_extra={"legacy": False})
    # Share of each later step's images that it trains on.
    image_share: float = Field(default=1.0, gt=0, le=1, json_schema_extra={"legacy": 1.0})
    # Number of images of earlier steps that each later step keeps.
    memory: int = Field(default=0, ge=0, json_schema_extra={"legacy": 0})
    # Digest of published lists of each step's images, for protocols without a rule.
    # None selects by `setting`.
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
        """Return a name for people, such as `voc 15-1 overlap`.

        Of the kind of labels it says only that step 0 has no masks: `voc 15-1 overlap weak-start`.
        """
        sizes = [len(group) for group in self.groups]
        base, *later = sizes
        same_size = len(set(later)) == 1
        split = f"{base}-{later[0]}" if same_size else "-".join(map(str, sizes))
        selection = self.setting if self.selections is None else "listed"
        start = " weak-start" if self.base_supervision == "image" else ""
        return f"{self.dataset} {split} {selection}{start}"


def split_groups(split: str, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return the class groups that a split stands for.

    Args:
        split: `A-B` for the first A names, then B at a time, so `15-1` of 20 names has six groups.
            `coco-voc` for COCO-to-VOC, and `coco-voc-5` for the same with five classes at a time
            (`training.protocols`).
        names: The dataset's class names, in order.

    Raises:
        InputError: The split cannot be read, or does not divide the names.
    """
    if named := re.fullmatch(r"coco-voc(?:-(\d+))?", split):
        return coco_to_voc_groups(names, int(named[1] or 20))
    try:
        base, increment = map(int, split.split("-"))
    except ValueError:
        raise InputError(
            f"split {split!r} is not of the form A-B, such as 15-5 or 15-1, nor coco-voc"
        ) from None
    rest = len(names) - base
    if base < 1 or increment < 1 or rest < 0 or rest % increment:
        raise InputError(
            f"split {split!r} does not divide {len(names)} classes: B must divide what A leaves "
            "of them, and both must be at least 1"
        )
    starts = range(base, len(names), increment)
    return (tuple(names[:base]), *(tuple(names[s : s + increment]) for s in starts))


def select_images(
    labels: np.ndarray,
    groups: Sequence[Sequence[int]],
    step: int,
    setting: Setting,
    ids: Sequence[str] = (),
) -> np.ndarray:
    """Return the rows of the images that a step trains on, int64 [n], sorted.

    Args:
        labels: bool [images, classes], column c - 1 for dataset class id c.
        groups: Dataset class ids of every step.
        step: The step's number, from 0.
        setting: The rule.
        ids: The images' ids, by row, from which a partition is drawn. The other settings need none.
    """
    if setting == "partitioned":
        own = own_classes(labels, flatten_groups(groups), ids)
        return np.flatnonzero(np.isin(own, groups[step]))
    columns = [np.asarray(group) - 1 for group in groups]
    chosen = labels[:, columns[step]].any(1)
    if setting == "disjoint":
        for later in columns[step + 1 :]:
            chosen &= ~labels[:, later].any(1)
    return np.flatnonzero(chosen)


def own_classes(labels: np.ndarray, classes: Sequence[int], ids: Sequence[str]) -> np.ndarray:
    """Return one class of each image, int64 [images]; 0 for an image that shows none of `classes`.

    It is drawn by the image's hashed id from the classes that the image shows, each as likely. The
    order in which classes are learned does not matter.

    Args:
        labels: bool [images, classes], column c - 1 for dataset class id c.
        classes: Dataset class ids to draw from.
        ids: The images' ids, by row.
    """
    columns = np.sort(np.asarray(classes)) - 1
    own = np.zeros(len(labels), np.int64)
    for row, id in zip(range(len(labels)), ids, strict=True):
        shown = columns[labels[row, columns]]
        if len(shown):
            drawn = int.from_bytes(sha256(f"class of {id}".encode()).digest()[:8])
            own[row] = shown[drawn % len(shown)] + 1
    return own


def hashed_order(rows: np.ndarray, ids: Sequence[str]) -> np.ndarray:
    """Return the rows in the order of the sha256 of their images' ids.

    The order is as good as random, and the same on every machine.
    """
    return np.array(
        sorted(rows.tolist(), key=lambda row: sha256(ids[int(row)].encode()).digest()),
        dtype=np.int64,
    )


def keep_share(rows: np.ndarray, ids: Sequence[str], share: float) -> np.ndarray:
    """Return a share of the rows, at least one, sorted; a smaller share is part of a larger one."""
    count = max(1, round(share * len(rows)))
    return np.sort(hashed_order(rows, ids)[:count])


def choose_memory(
    labels: np.ndarray,
    previous_classes: Sequence[int],
    candidates: np.ndarray,
    ids: Sequence[str],
    size: int,
) -> np.ndarray:
    """Return the rows of at most `size` images that show previous classes, sorted.

    Classes take turns in the order they were learned. Each takes its first image, in hashed order,
    that no class has taken yet.

    Args:
        labels: bool [images, classes], column c - 1 for dataset class id c.
        previous_classes: Dataset class ids, in the order they were learned.
        candidates: Rows of the images that earlier steps trained on.
        ids: The images' ids, by row.
        size: Number of images to choose.
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
    """Return the training target of each mask value, uint8 [256].

    It is the channel of a labelled class, and background for all others. Channels follow the order
    in which classes were learned. Void becomes background or 255, as the task says. In a task
    without background, all that is not labelled is 255.
    """
    return _label_map(task, task.new_classes if task.labels == "new" else task.classes)


def pixel_shares(task: Task, pixels: np.ndarray) -> tuple[float, ...]:
    """Return the share of the pixels that each channel of the step's own classifier has.

    It is (n + 1) / (N + 2) for n of N pixels, so that no channel has all or none.

    Args:
        task: The step's task.
        pixels: int64 [images, classes + 1], pixels of each mask value in the step's images. Void
            pixels are not among them.
    """
    counted = pixels.sum(0)
    channels = label_map(task)[: len(counted)]
    counted, channels = counted[channels != VOID], channels[channels != VOID]
    by_channel = np.zeros(sum(task.channels), np.int64)
    np.add.at(by_channel, channels, counted)
    total = int(counted.sum())
    return tuple((n + 1) / (total + 2) for n in by_channel[-task.channels[-1] :].tolist())


def memory_label_map(task: Task) -> np.ndarray:
    """Return the `label_map` of images kept of earlier steps; it has the previous classes only."""
    return _label_map(task, task.previous_classes)


def _label_map(task: Task, labelled: Sequence[int]) -> np.ndarray:
    other = BACKGROUND if task.background == "class" else VOID
    table = np.full(256, other, np.uint8)
    for class_id in labelled:
        table[class_id] = task.first_channel + task.classes.index(class_id)
    table[VOID] = VOID if task.void == "ignore" else other
    return table


def image_labels(task: Task, labels: np.ndarray) -> np.ndarray:
    """Return the labels that a weak step may know of each image.

    Args:
        task: The step's task.
        labels: bool [images, classes] of the whole dataset.

    Returns:
        float32 [images, channels - 1] in channel order, without background. Previous classes are
        zero unless the task labels all classes seen so far.
    """
    columns = np.asarray(task.classes) - 1
    known = labels[:, columns].astype(np.float32)
    if task.labels == "new":
        known[:, : len(task.previous_classes)] = 0
    return known


def memory_image_labels(task: Task, labels: np.ndarray) -> np.ndarray:
    """Return the `image_labels` of images kept of earlier steps; new classes are zero."""
    known = labels[:, np.asarray(task.classes) - 1].astype(np.float32)
    known[:, len(task.previous_classes) :] = 0
    return known
