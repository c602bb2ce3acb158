"""Measure a stored dataset before anybody trains on it.

What the index says is counted over all images: classes, pixels, void, what a step would see. Sizes
of objects, files and likeness need pixels. They are measured on a sample that shows every class,
one image after another, so memory does not grow with the dataset.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np

from orchestrator.datasets.stored_split import open_stored_split
from orchestrator.store.base import Store
from orchestrator.store.cache import default_cache
from training.config import BACKGROUND, VOID
from training.data.headers import mask_header, photo_header
from training.data.likeness import edge_fit, fingerprint
from training.data.manifest import Manifest
from training.data.mask_pixels import PALETTE, palette_of
from training.data.reading import MOST_PIXELS
from training.data.shards import Index, LocalSplit
from training.data.transforms import decode_image, decode_mask
from training.scenario import hashed_order

OF_EACH_CLASS = 20  # images of a sample that show a class, where there are so many
SPECK = 4  # pixels; what is smaller is no object


class Decoded(NamedTuple):
    """An image of a split with its mask, and what their files say."""

    pixels: np.ndarray  # RGB, uint8 [H, W, 3]
    labels: np.ndarray  # class ids, uint8 [H, W]
    exif: int  # the orientation that the photo asks for, 1 to 8
    palette: Mapping[int, str]  # colours of the class ids in use, where the mask has a palette


@dataclass
class Sample:
    """What was measured on some images of a split."""

    rows: Sequence[int]
    fingerprints: np.ndarray  # float32 [images, 256]
    sides: dict[int, list[float]] = field(default_factory=dict)  # of objects by class, pixels
    # Images whose photo asks to be turned and is read as stored.
    not_turned: list[str] = field(default_factory=list)
    fits: list[Mapping[str, float]] = field(default_factory=list)  # as `edge_fit` returns them
    # How many images show a class id in which colour.
    palettes: Counter[tuple[int, str]] = field(default_factory=Counter)


@dataclass(frozen=True)
class LookedAt:
    """A split, and what was measured on a sample of it."""

    name: str
    split: LocalSplit
    sample: Sample

    @property
    def index(self) -> Index:
        return self.split.index

    @property
    def void_share(self) -> float:
        """Return the share of all pixels that is void."""
        total = int(self.index.sizes.prod(1).sum())
        return 1 - int(self.index.pixels.sum()) / total if total else 0.0


def look_at(
    store: Store,
    dataset: str,
    manifest: Manifest,
    count: int,
    progress: Callable[[int], None] = lambda done: None,
) -> list[LookedAt]:
    """Measure each split of a dataset, and return them with `train` first.

    Args:
        store: The store that holds it.
        dataset: Its name.
        manifest: Its manifest.
        count: Images of each split to decode, at most; a sample that shows every class may have
            more.
        progress: Takes how many images are decoded.

    Raises:
        StoreError: The store does not answer.
        BadData: An image is damaged.
    """
    found = []
    done = 0
    for name in sorted(manifest.splits, key=lambda split: (split != "train", split)):
        open_rows = partial(open_stored_split, store, manifest, name, default_cache())
        index = open_rows(dataset=dataset).index
        rows = sample_rows(index, count)
        split = open_rows(dataset=dataset, rows=rows)
        sample = _measure(split, rows.tolist(), lambda here, before=done: progress(before + here))
        done += len(rows)
        found.append(LookedAt(name, split, sample))
    return found


def sample_rows(index: Index, count: int) -> np.ndarray:
    """Return the rows to decode, int64, sorted: some of each class, and others up to `count`.

    They are the same on every machine.
    """
    order = hashed_order(np.arange(len(index.ids)), index.ids)
    chosen = set(order[:count].tolist())
    for shown in index.labels.T:
        chosen.update(order[shown[order]][:OF_EACH_CLASS].tolist())
    return np.array(sorted(chosen), np.int64)


def decode(split: LocalSplit, row: int) -> Decoded:
    """Read and decode one image with its mask."""
    index = split.index
    shard = split.open_shard(row)
    photo, mask = (
        bytes(shard[first : first + size])
        for first, size in (index.image_range[row], index.mask_range[row])
    )
    palette = {}
    labels = decode_mask(mask, split.reading)
    if mask_header(mask).kind == PALETTE and split.reading.masks != "colours":
        colours = palette_of(mask)
        used = [value for value in np.unique(labels).tolist() if value < len(colours)]
        palette = {value: bytes(colours[value]).hex() for value in used if value != VOID}
    return Decoded(
        decode_image(photo, int(index.orientation[row])),
        labels,
        photo_header(photo, MOST_PIXELS).orientation,
        palette,
    )


def object_sides(labels: np.ndarray, class_id: int) -> list[float]:
    """Return the side of a square as large as each connected piece of a class, in pixels."""
    mask = (labels == class_id).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    return np.sqrt(areas[areas >= SPECK]).tolist()


def _measure(split: LocalSplit, rows: Sequence[int], progress: Callable[[int], None]) -> Sample:
    """Decode the images at `rows`, one after another."""
    sample = Sample(rows, np.zeros((len(rows), 256), np.float32))
    for position, row in enumerate(rows):
        decoded = decode(split, row)
        sample.fingerprints[position] = fingerprint(decoded.pixels)
        for class_id in np.unique(decoded.labels).tolist():
            if class_id not in (BACKGROUND, VOID):
                sides = sample.sides.setdefault(class_id, [])
                sides += object_sides(decoded.labels, class_id)
        if decoded.exif != 1 and split.index.orientation[row] == 1:
            sample.not_turned.append(split.index.ids[row])
        if fits := edge_fit(decoded.pixels, decoded.labels):
            sample.fits.append(fits)
        sample.palettes.update(decoded.palette.items())
        progress(position + 1)
    return sample
