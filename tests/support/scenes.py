"""Draw datasets of boxes on noise, with the faults that datasets have."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from orchestrator.datasets.catalog import publish
from orchestrator.store.base import Store
from tests.support.datasets import build_dataset
from training.data.reading import NOTHING_ASKED, Asked
from training.data.source import Sample

Fault = Callable[[np.ndarray], np.ndarray]


class Boxes:
    """A source of photos with one box each, whose class goes round.

    Args:
        classes: Names of the classes.
        counts: Images of each split.
        fault: What is done to every mask.
        exif: The orientation that the photos' EXIF asks for.
        palette: Colours of the masks' values, 768 numbers; none for grey masks.
        copies: How many images of the second split are photos of the first, saved again.
    """

    def __init__(
        self,
        classes: tuple[str, ...] = ("crack", "rust"),
        counts: dict[str, int] | None = None,
        fault: Fault = lambda mask: mask,
        exif: int = 1,
        palette: list[int] | None = None,
        copies: int = 0,
    ) -> None:
        self.classes = classes
        self.counts = counts or {"train": 40, "val": 12}
        self.splits = tuple(self.counts)
        self.fault = fault
        self.exif = exif
        self.palette = palette
        self.copies = copies

    def ids(self, split: str) -> list[str]:
        return [f"{split}-{number:03d}" for number in range(self.counts[split])]

    def read(self, split: str, id: str) -> Sample:
        number = int(id.rpartition("-")[2])
        seed = self.splits.index(split) * 1000 + number
        is_copy = split == self.splits[-1] and number < self.copies
        rng = np.random.default_rng(number if is_copy else seed)
        pixels = rng.integers(0, 60, (48, 64, 3)) + rng.integers(0, 100, (6, 8, 1)).repeat(
            8, 0
        ).repeat(8, 1)
        mask = np.zeros((48, 64), np.uint8)
        top, left = rng.integers(2, 20), rng.integers(2, 20)
        mask[top : top + 16, left : left + 16] = 1 + number % len(self.classes)
        pixels[mask > 0] += 90
        exif = Image.Exif()
        if self.exif != 1:
            exif[0x0112] = self.exif
        photo, labels = io.BytesIO(), io.BytesIO()
        picture = Image.fromarray(pixels.astype(np.uint8))
        picture.save(photo, "JPEG", quality=70 if is_copy else 95, exif=exif)
        drawn = Image.fromarray(self.fault(mask))
        if self.palette:
            drawn.putpalette(self.palette)
        drawn.save(labels, "PNG")
        return Sample(id, photo.getvalue(), labels.getvalue())


def publish_boxes(
    store: Store, folder: Path, source: Boxes, name: str = "boxes", asked: Asked = NOTHING_ASKED
) -> None:
    """Publish a source as a dataset; `folder` is for the files on the way."""
    manifest, _ = build_dataset(source, folder, asked=asked)
    publish(store, name, folder, manifest)
