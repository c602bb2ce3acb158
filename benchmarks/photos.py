"""Draw photos of VOC's size with masks, for benchmarks that need a dataset but no download."""

import io

import cv2
import numpy as np
from PIL import Image

from training.config import VOID
from training.data.source import Sample

WIDTH = 500
HEIGHT = 375
QUALITY = 93  # of the JPEG files


class Photos:
    """Noise over soft colours, with masks of a few ellipses.

    JPEG compresses such images no better than photos.
    """

    classes = tuple(f"class {number}" for number in range(20))
    splits = ("train",)

    def __init__(self, count: int) -> None:
        self.count = count

    def ids(self, split: str) -> list[str]:
        """Return the names of the images."""
        return [f"{number:06d}" for number in range(self.count)]

    def read(self, split: str, id: str) -> Sample:
        """Draw one image and its mask."""
        rng = np.random.default_rng(int(id))
        image = draw_image(rng)
        mask = Image.fromarray(draw_mask(rng)).convert("P")
        mask.putpalette(np.random.default_rng(0).bytes(768))
        return Sample(id, encode(image, "JPEG", quality=QUALITY), encode(mask, "PNG"))


def draw_image(rng: np.random.Generator) -> Image.Image:
    """Draw grain of random strength over a few soft colours."""
    coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    soft = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    noise = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    grain = cv2.GaussianBlur(noise, (0, 0), 0.8)
    strength = rng.uniform(0.5, 1.35)
    return Image.fromarray(cv2.addWeighted(soft, 1.0, grain, strength, -128 * strength))


def draw_mask(rng: np.random.Generator) -> np.ndarray:
    """Draw one to four ellipses of random classes, each with a void border."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for _ in range(rng.integers(1, 5)):
        centre = rng.integers((0, 0), (WIDTH, HEIGHT)).tolist()
        axes = rng.integers((40, 30), (200, 150)).tolist()
        angle = int(rng.integers(0, 180))
        class_id = int(rng.integers(1, 21))
        cv2.ellipse(mask, centre, axes, angle, 0, 360, color=VOID, thickness=6)
        cv2.ellipse(mask, centre, axes, angle, 0, 360, color=class_id, thickness=-1)
    return mask


def encode(picture: Image.Image, kind: str, **options: int) -> bytes:
    """Return the picture as the bytes of a file."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()
