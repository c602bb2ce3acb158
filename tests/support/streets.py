"""Write a small folder in Cityscapes' layout: streets of coloured boxes, some of them void."""

from pathlib import Path

import numpy as np
from PIL import Image

from training.data.cityscapes import CLASSES_BY_LABEL_ID

CITIES = {"train": ("aachen", "bochum"), "val": ("lindau",)}
HEIGHT, WIDTH = 32, 64
EGO_VEHICLE, PARKING = 1, 9  # label ids that are not scored


def write_streets(root: Path, counts: dict[str, int] | None = None) -> Path:
    """Write so many frames of each city, and return the folder.

    Each frame has four columns of classes that go round, so that neighbours in the list of classes
    are seen together, and a strip of void at the bottom.
    """
    counts = counts or {"train": 12, "val": 6}
    rng = np.random.default_rng(0)
    ids = [*CLASSES_BY_LABEL_ID]
    for split, cities in CITIES.items():
        for city in cities:
            photos, masks = root / "leftImg8bit" / split / city, root / "gtFine" / split / city
            photos.mkdir(parents=True)
            masks.mkdir(parents=True)
            for number in range(counts[split]):
                shown = [ids[(4 * number + column) % len(ids)] for column in range(4)]
                labels = np.repeat(np.array(shown, np.uint8), WIDTH // 4)[None].repeat(HEIGHT, 0)
                labels[-6:-3] = EGO_VEHICLE
                labels[-3:] = PARKING
                noise = rng.integers(0, 40, (HEIGHT, WIDTH, 3))
                colours = np.stack([labels * 7, labels * 3, 255 - labels * 5], -1)
                frame = f"{city}_{number:06d}_000019"
                pixels = (colours // 2 + noise).astype(np.uint8)
                Image.fromarray(pixels).save(photos / f"{frame}_leftImg8bit.png")
                Image.fromarray(labels).save(masks / f"{frame}_gtFine_labelIds.png")
                Image.fromarray(labels).save(masks / f"{frame}_gtFine_instanceIds.png")
    return root
