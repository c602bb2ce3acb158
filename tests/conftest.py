"""Datasets that tests of several packages read: a small folder in VOC's layout, and any source as a step would see it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data.shards import Index, LocalSplit, Manifest, build
from training.data.sources import Source

VOC_SUBSET = (8, 9, 13, 15, 18, 10, 12, 17)  # cat chair horse person sofa, cow dog sheep
LocalBuild = Callable[..., LocalSplit]


@pytest.fixture
def voc_folder(tmp_path: Path) -> Path:
    """24 training and 8 validation photos of about 64 x 48, each with two boxes of a class, bordered by void."""
    root = tmp_path / "VOC2012"
    for folder in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClassAug"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, count in {"train_aug": 24, "val": 8}.items():
        ids = [f"2007_{name}_{number:03d}" for number in range(count)]
        (root / "ImageSets" / "Segmentation" / f"{name}.txt").write_text("\n".join(ids) + "\n")
        for number, id in enumerate(ids):
            height, width = 48 + number % 5, 64 - number % 7
            mask = np.zeros((height, width), np.uint8)
            for box in range(2):
                top, left = rng.integers(0, height - 20), rng.integers(0, width - 20)
                mask[top : top + 20, left : left + 20] = 255
                mask[top + 1 : top + 19, left + 1 : left + 19] = VOC_SUBSET[(number + box) % len(VOC_SUBSET)]
            noise = rng.integers(0, 60, (height, width, 3))
            image = (noise + mask[..., None] * np.array([7, 3, 1]) % 180).astype(np.uint8)
            Image.fromarray(image).save(root / "JPEGImages" / f"{id}.jpg", quality=90)
            save_mask(mask, root / "SegmentationClassAug" / f"{id}.png")
    return root


def save_mask(mask: np.ndarray, path: Path) -> None:
    """Write class values as a PNG with a palette."""
    picture = Image.fromarray(mask).convert("P")
    picture.putpalette([37 * value % 256 for value in range(768)])
    picture.save(path)


@pytest.fixture
def local_split(tmp_path: Path) -> LocalBuild:
    """Function that builds a source below tmp_path and gives one of its splits as training sees it."""

    def make(source: Source, split: str = "train", **options: object) -> LocalSplit:
        folder = tmp_path / "built"
        manifest, _ = build(source, folder, **options)  # pyright: ignore[reportArgumentType]
        return open_split(manifest, split, folder)

    return make


def open_split(manifest: Manifest, split: str, folder: Path) -> LocalSplit:
    """A split of what `build` wrote to `folder`."""
    files = manifest.splits[split]
    index = Index.load(folder / f"{files.index.sha256}.parquet", len(manifest.classes))
    shards = tuple(folder / f"{shard.sha256}.arrow" for shard in files.shards)
    return LocalSplit(index, shards, manifest.classes, files.content)
