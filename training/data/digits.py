"""Draw a segmentation dataset that needs no download: scenes of handwritten digits.

Each scene holds one to three digits of random place, size and colour over a smooth, darker random
background with noise. The handwriting is scikit-learn's bundled 8 x 8 digits. Validation scenes use
other samples of it than training scenes. Scene n of a split follows from (seed, split, n) alone, in
integer arithmetic, so that every machine draws the same pixels.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from sklearn.datasets import load_digits

from training.config import InputError
from training.data.source import Sample

SIDE = 64  # of a scene, pixels
SIZES = (22, 32)  # of a digit's box, pixels
# One in four handwritten samples is kept for validation.
VALIDATION_SHARE = 4
# A pixel belongs to the stroke from this ink on, out of 255.
INK = 96
# No background is lighter, with its noise; the strokes of digits are.
LIGHTEST = 176


class Digits:
    """Scenes of digits: classes "0" to "9" (ids 1 to 10), splits train and val.

    Args:
        seed: Decides what is drawn; not negative.
        train: Number of scenes of train, at least 1.
        val: Number of scenes of val, at least 1.

    Raises:
        InputError: A split has no scenes, or the seed is negative.
    """

    classes = tuple("0123456789")
    splits = ("train", "val")

    def __init__(self, seed: int = 0, train: int = 1500, val: int = 300) -> None:
        if min(seed, train - 1, val - 1) < 0:
            raise InputError(
                "digits need a scene in each split and a seed that is not negative, "
                f"not train={train}, val={val}, seed={seed}"
            )
        self.seed = seed
        self.recipe = f"seed {seed}"
        self.counts = {"train": train, "val": val}
        # Ink of 0 to 16, float [1797, 64], and the digits, int [1797].
        pixels, digits = load_digits(return_X_y=True)
        strokes = (np.asarray(pixels).reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
        class_ids = np.asarray(digits, np.uint8) + 1
        held_out = np.arange(len(strokes)) % VALIDATION_SHARE == 0
        self.handwriting = {
            "train": (strokes[~held_out], class_ids[~held_out]),
            "val": (strokes[held_out], class_ids[held_out]),
        }

    def ids(self, split: str) -> list[str]:
        """Return the ids of the split's scenes."""
        return [f"{split}-{number:05d}" for number in range(self.counts[split])]

    def files(self, split: str, id: str) -> tuple[Path, ...]:
        """Return no files: a scene is drawn."""
        return ()

    def read(self, split: str, id: str) -> Sample:
        """Draw one scene."""
        number = int(id.removeprefix(f"{split}-"))
        rng = np.random.default_rng([self.seed, self.splits.index(split), number])
        image = _background(rng)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        strokes, class_ids = self.handwriting[split]
        for _ in range(rng.integers(1, 4)):
            chosen = rng.integers(len(strokes))
            _draw_digit(image, mask, strokes[chosen], int(class_ids[chosen]), rng)
        picture = Image.fromarray(_with_noise(image, rng))
        return Sample(id, _png(picture), _png(_palette_picture(mask)))


def saliency(image: np.ndarray) -> np.ndarray:
    """Return 1 where a scene is lighter than any background, as a detector of saliency might.

    Args:
        image: RGB, uint8 [H, W, 3].

    Returns:
        uint8 [H, W].
    """
    return (image.max(2) > LIGHTEST).astype(np.uint8)


def _background(rng: np.random.Generator) -> np.ndarray:
    """Return a dark colour that varies smoothly, uint8 [SIDE, SIDE, 3]."""
    coarse = rng.integers(40, 110, 3) + rng.integers(0, 40, (4, 4, 3))
    picture = Image.fromarray(coarse.astype(np.uint8))
    return np.array(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def _draw_digit(
    image: np.ndarray, mask: np.ndarray, stroke: np.ndarray, class_id: int, rng: np.random.Generator
) -> None:
    """Draw one digit into the scene, in place, where it hides no other.

    A scene too full for that stays as it is.

    Args:
        image: The scene, uint8 [SIDE, SIDE, 3].
        mask: Its class ids, uint8 [SIDE, SIDE].
        stroke: The handwriting, ink of 0 to 255, uint8 [8, 8].
        class_id: The digit's class.
        rng: Decides size, place and colour.
    """
    size = int(rng.integers(SIZES[0], SIZES[1] + 1))
    ink = np.array(Image.fromarray(stroke).resize((size, size), Image.Resampling.BICUBIC))
    thin = Image.fromarray(np.where(ink > INK, 255, 0).astype(np.uint8))
    shape = np.array(thin.filter(ImageFilter.MaxFilter(3))) > 0
    for _ in range(20):
        top, left = rng.integers(0, SIDE - size + 1, 2)
        box = np.s_[top : top + size, left : left + size]
        if mask[box][shape].any():
            continue
        colour = rng.integers(110, 256, 3)
        # One full channel makes the digit lighter than any background.
        colour[rng.integers(3)] = 255
        opacity = ink[..., None].astype(np.int64)
        image[box] = (image[box] * (255 - opacity) + colour * opacity) // 255
        mask[box][shape] = class_id
        return


def _with_noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    noise = rng.integers(-12, 13, image.shape) + rng.integers(-12, 13, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def _palette_picture(mask: np.ndarray) -> Image.Image:
    """Return the mask with a colour per class, as the masks of published datasets have."""
    picture = Image.fromarray(mask).convert("P")
    palette = np.arange(256)[:, None] * (97, 157, 211) % 256  # [values, RGB]
    picture.putpalette(palette.ravel().tolist())
    return picture


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
