"""What is fit to be stored: every image is decoded once, more strictly than training will, before anything is built on it."""

import hashlib
import io
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from training.config import VOID, Document
from training.data.source import BadData, LeftOut, Sample, Source
from training.data.transforms import decode_image, decode_mask


class BadRow(Document):
    """An image that cannot be used, and why."""

    split: str
    id: str
    reason: str


class BadRows(BadData):
    """Images of a dataset cannot be used; `rows` lists all of them."""

    def __init__(self, rows: list[BadRow]) -> None:
        shown = [f"{row.split}/{row.id}: {row.reason}" for row in rows[:3]]
        more = [f"and {len(rows) - 3} more"] if len(rows) > 3 else []
        count = f"{len(rows)} images" if len(rows) > 1 else "1 image"
        super().__init__(
            f"{count} cannot be used ({' | '.join(shown + more)}); mend them, or leave them out with --on-bad skip"
        )
        self.rows = rows


class Row(NamedTuple):
    """An image that is fit to be stored, with what the index says about it."""

    sample: Sample
    width: int
    height: int
    pixels: np.ndarray  # int64 [256], of each mask value
    sha256: bytes  # of the sha256 of the image and that of the mask


def examine(source: Source, split: str, id: str) -> Row | BadRow | None:
    """One image of a split, looked at; None where the split does without it."""
    try:
        return inspect(source.read(split, id), len(source.classes))
    except BadData as error:
        return BadRow(split=split, id=id, reason=str(error))
    except LeftOut:
        return None


def inspect(sample: Sample, classes: int) -> Row:
    """Decode a sample and look at its mask; BadData says what is wrong with it."""
    try:
        with Image.open(io.BytesIO(sample.image)) as picture:
            picture.load()  # notices a file that stops early, where OpenCV may fill with gray
    except UnidentifiedImageError:  # whose message holds an address
        raise BadData("the image cannot be decoded: it is not a JPEG or PNG") from None
    except (OSError, SyntaxError) as error:
        raise BadData(f"the image cannot be decoded: {error}") from None
    height, width = decode_image(sample.image).shape[:2]
    mask = decode_mask(sample.mask)
    if mask.shape != (height, width):
        raise BadData(
            f"the mask is {mask.shape[1]} x {mask.shape[0]} pixels and the image {width} x {height}; they must be of one size"
        )
    pixels = np.bincount(mask.ravel(), minlength=256)
    undeclared = [value for value in np.flatnonzero(pixels).tolist() if classes < value < VOID]
    if undeclared:
        raise BadData(
            f"the mask holds the value {undeclared[0]}; declared are 0 to {classes}, and {VOID} for void"
        )
    digest = hashlib.sha256(
        hashlib.sha256(sample.image).digest() + hashlib.sha256(sample.mask).digest()
    ).digest()
    return Row(sample, width, height, pixels, digest)
