"""Draw small datasets in VOC's layout."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from training.data.reading import voc_colour

VOC_SUBSET = (8, 9, 13, 15, 18, 10, 12, 17)  # cat chair horse person sofa, cow dog sheep


def draw_voc_folder(root: Path) -> Path:
    """Draw 24 training and 8 validation photos of about 64 x 48, and return the folder.

    Each photo has two boxes of a class each, bordered by void.
    """
    rng = np.random.default_rng(0)
    for number, id in write_voc_lists(root, {"train_aug": 24, "val": 8}):
        height, width = 48 + number % 5, 64 - number % 7
        mask = np.zeros((height, width), np.uint8)
        for box in range(2):
            top, left = rng.integers(0, height - 20), rng.integers(0, width - 20)
            mask[top : top + 20, left : left + 20] = 255
            class_id = VOC_SUBSET[(number + box) % len(VOC_SUBSET)]
            mask[top + 1 : top + 19, left + 1 : left + 19] = class_id
        noise = rng.integers(0, 60, (height, width, 3))
        image = (noise + mask[..., None] * np.array([7, 3, 1]) % 180).astype(np.uint8)
        Image.fromarray(image).save(root / "JPEGImages" / f"{id}.jpg", quality=90)
        save_mask(mask, root / "SegmentationClassAug" / f"{id}.png")
    return root


def write_voc_lists(root: Path, counts: Mapping[str, int]) -> list[tuple[int, str]]:
    """Make the folders of VOC's layout and its lists; return (number in its list, id) of images."""
    for folder in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClassAug"):
        (root / folder).mkdir(parents=True)
    images = []
    for name, count in counts.items():
        ids = [f"2007_{name}_{number:03d}" for number in range(count)]
        (root / "ImageSets" / "Segmentation" / f"{name}.txt").write_text("\n".join(ids) + "\n")
        images += enumerate(ids)
    return images


def save_mask(mask: np.ndarray, path: Path) -> None:
    """Write class values as a PNG with VOC's palette."""
    picture = Image.fromarray(mask).convert("P")
    picture.putpalette(b"".join(bytes(voc_colour(id)) for id in range(256)))
    picture.save(path)
