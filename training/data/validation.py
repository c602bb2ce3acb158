"""Check images and masks before they are stored, more strictly than training does.

Whatever passes decodes, has a mask of its image's size, and holds no undeclared class.
"""

import hashlib
import io
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from training.config import VOID, Document
from training.data.source import BadData, LeftOut, Sample, Source
from training.data.transforms import decode_image, decode_mask


class BadRow(Document):
    """An image that cannot be used, and the reason."""

    split: str
    id: str
    reason: str


class BadRows(BadData):
    """Images of a dataset cannot be used; `rows` lists all of them."""

    def __init__(self, rows: list[BadRow]) -> None:
        reasons = [f"{row.split}/{row.id}: {row.reason}" for row in rows[:3]]
        if len(rows) > 3:
            reasons.append(f"and {len(rows) - 3} more")
        count = f"{len(rows)} images" if len(rows) > 1 else "1 image"
        super().__init__(
            f"{count} cannot be used ({' | '.join(reasons)}); fix them, or leave them out with "
            "--on-bad skip"
        )
        self.rows = rows


class Row(NamedTuple):
    """An image that can be stored, with its entry of the index."""

    sample: Sample
    width: int  # pixels
    height: int  # pixels
    pixels: np.ndarray  # int64 [256], pixels of each mask value
    sha256: bytes  # of the sha256 of the image and that of the mask


def examine(source: Source, split: str, id: str) -> Row | BadRow | None:
    """Read and check one image of a split; return None when the split leaves it out."""
    try:
        return inspect(source.read(split, id), len(source.classes))
    except BadData as error:
        return BadRow(split=split, id=id, reason=str(error))
    except LeftOut:
        return None


def inspect(sample: Sample, classes: int) -> Row:
    """Decode a sample and check its mask.

    Args:
        sample: The image and its mask.
        classes: How many classes the dataset has, without background.

    Raises:
        BadData: The sample cannot be used; the message says why.
    """
    _check_image(sample.image)
    height, width = decode_image(sample.image).shape[:2]
    mask = decode_mask(sample.mask)
    if mask.shape != (height, width):
        raise BadData(
            f"the mask is {mask.shape[1]} x {mask.shape[0]} pixels and the image "
            f"{width} x {height}; they must be of one size"
        )
    pixels = np.bincount(mask.ravel(), minlength=256)
    undeclared = [value for value in np.flatnonzero(pixels).tolist() if classes < value < VOID]
    if undeclared:
        raise BadData(
            f"the mask holds the value {undeclared[0]}; declared are 0 to {classes}, "
            f"and {VOID} for void"
        )
    image_sha256 = hashlib.sha256(sample.image).digest()
    mask_sha256 = hashlib.sha256(sample.mask).digest()
    return Row(sample, width, height, pixels, hashlib.sha256(image_sha256 + mask_sha256).digest())


def _check_image(data: bytes) -> None:
    """Raise BadData for an image that Pillow does not read to its end.

    OpenCV may fill the rest with gray.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
    except UnidentifiedImageError:
        # Pillow's own message holds a memory address.
        raise BadData("the image cannot be decoded: it is not a JPEG or PNG") from None
    except (OSError, SyntaxError) as error:
        raise BadData(f"the image cannot be decoded: {error}") from None
