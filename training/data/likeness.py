"""Find images that look alike, and masks that do not lie where their photo's edges are."""

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

SIDE = 16  # pixels of a fingerprint's side
ALIKE = 0.985  # correlation of two fingerprints
FLAT = 4.0  # deviation of grey, 0 to 255, below which a photo looks like every other
CHUNK = 2048  # fingerprints that are compared at once
EDGES = 256  # pixels of the longer side at which edges are looked for
# How a mask may have been turned against its photo: OpenCV's flips.
TURNS = {"left to right": 1, "upside down": 0, "by half a turn": -1}


class Pair(NamedTuple):
    """Two images that look alike, by their positions."""

    first: int
    second: int
    correlation: float


def fingerprint(pixels: np.ndarray) -> np.ndarray:
    """Return a photo's greys at 16 x 16 pixels, float32 [256], of mean 0 and length 1.

    The product of two is their correlation. A photo without contrast has zeros, and resembles none.

    Args:
        pixels: RGB, uint8 [H, W, 3].
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    if small.std() < FLAT:
        return np.zeros_like(small)
    small -= small.mean()
    return small / np.linalg.norm(small)


def alike(first: np.ndarray, second: np.ndarray) -> Iterator[Pair]:
    """Yield the pairs that look alike, by the first's order; each of the first at most once.

    Args:
        first: Fingerprints, float32 [n, 256].
        second: Likewise, [m, 256].
    """
    if not len(second):
        return
    for start in range(0, len(first), CHUNK):
        products = first[start : start + CHUNK] @ second.T
        nearest = products.argmax(1)
        for row in np.flatnonzero(products.max(1) >= ALIKE).tolist():
            near = int(nearest[row])
            yield Pair(start + row, near, float(products[row, near]))


def edge_fit(pixels: np.ndarray, labels: np.ndarray) -> dict[str, float] | None:
    """Return how strong a photo's edges are along the mask's borders, by how the mask is turned.

    1 is as strong as anywhere in the photo. The key "" is the mask as it is, others are `TURNS`.

    Args:
        pixels: RGB, uint8 [H, W, 3].
        labels: Class ids, uint8 [H, W].

    Returns:
        None where the mask has no border, or the photo no edge.
    """
    height, width = labels.shape
    scale = min(1.0, EDGES / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    mask = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT)
    grey = cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), (3, 3), 0)
    strength = cv2.magnitude(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    around = np.ones((3, 3), np.uint8)
    border = (cv2.dilate(mask, around) != cv2.erode(mask, around)).astype(np.uint8)
    mean = float(strength.mean())
    if not border.any() or mean == 0:
        return None
    fits = {"": float(strength[border > 0].mean()) / mean}
    for words, flip in TURNS.items():
        fits[words] = float(strength[cv2.flip(border, flip) > 0].mean()) / mean
    return fits
