"""Check images and masks before they are stored, more strictly than training does.

Whatever passes decodes, has a mask of its image's size, and holds no undeclared class. Sizes are
compared before any pixel is decoded.
"""

import hashlib
from collections import Counter
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from training.config import VOID, Document
from training.data.headers import (
    INGEST_LIMIT,
    Header,
    MaskHeader,
    check_size,
    mask_header,
    open_photo,
    orientation_of,
    undecodable,
)
from training.data.mask_pixels import PALETTE, mask_orientation, palette_of, undeclared_values
from training.data.photo import remark_darkness
from training.data.reading import NOTHING_ASKED, Asked
from training.data.source import BadData, LeftOut, Sample, Source
from training.data.transforms import decode_image, decode_mask, turn

KINDS = {0: "gray", 2: "RGB", 3: "palette", 4: "gray with alpha", 6: "RGB with alpha"}


class BadRow(Document):
    """An image that cannot be used, and the reason."""

    split: str
    id: str
    reason: str


class BadRows(BadData):
    """Images of a dataset cannot be used; `rows` lists all of them."""

    def __init__(self, rows: list[BadRow]) -> None:
        alike = Counter(row.reason for row in rows)
        first = {row.reason: row for row in reversed(rows)}
        reasons = []
        for reason in list(alike)[:3]:
            others = f" and {alike[reason] - 1} more" if alike[reason] > 1 else ""
            reasons.append(f"{first[reason].split}/{first[reason].id}{others}: {reason}")
        rest = len(rows) - sum(list(alike.values())[:3])
        if rest:
            reasons.append(f"and {rest} more")
        count = f"{len(rows)} images" if len(rows) > 1 else "1 image"
        super().__init__(
            f"{count} cannot be used ({' | '.join(reasons)}); fix them, or leave them out with "
            "--on-bad skip"
        )
        self.rows = rows


class Seen(Document):
    """What the files of an image say of how they are to be read."""

    # The orientation that the photo's EXIF asks for, and how its size fits the mask's.
    exif: int = Field(default=1, json_schema_extra={"legacy": 1})
    fits: Literal["stored", "upright", "both"] = Field(
        default="stored", json_schema_extra={"legacy": "stored"}
    )
    # The mask's kind, such as palette, or gray with its bits.
    mask: str = Field(default="gray 8", json_schema_extra={"legacy": "gray 8"})
    # The colours of the palette indices in use, such as ff0000.
    colours: dict[int, str] = Field(default={}, json_schema_extra={"legacy": {}})


class Row(NamedTuple):
    """An image that can be stored, with its entry of the index."""

    sample: Sample
    width: int  # pixels, as read
    height: int  # pixels, as read
    pixels: np.ndarray  # int64 [256], pixels of each class id
    sha256: bytes  # of the sha256 of the image and that of the mask
    seen: Seen


def examine(source: Source, split: str, id: str, asked: Asked) -> Row | BadRow | None:
    """Read and check one image of a split; return None when the split leaves it out.

    Raises:
        OSError: The disk does not answer; what is wrong with a file is a BadRow.
    """
    try:
        return inspect(source.read(split, id), len(source.classes), asked)
    except BadData as error:
        reason = str(error)
    except LeftOut:
        return None
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001  one image must not end the others; the row names it
        reason = f"it cannot be read ({type(error).__name__}: {error}): repair it, or take it out"
    return BadRow(split=split, id=id, reason=reason)


def inspect(sample: Sample, classes: int, asked: Asked = NOTHING_ASKED) -> Row:
    """Decode a sample and check its mask.

    Args:
        sample: The image and its mask.
        classes: How many classes the dataset has, without background.
        asked: How the files are to be read.

    Raises:
        BadData: The sample cannot be used; the message says why.
    """
    header = mask_header(sample.mask)
    check_size(header.width, header.height, asked.max_pixels, "mask", INGEST_LIMIT)
    photo = _check_photo(sample.image, asked.max_pixels)
    exif, fits = _fit(photo, header, mask_orientation(sample.mask))
    width, height = photo.upright_size if fits == "upright" else photo[:2]
    decoded = turn(decode_image(sample.image), exif if fits == "upright" else 1)
    if decoded.shape[:2] != (height, width):
        raise BadData(
            f"the image cannot be decoded: it has {decoded.shape[1]} x {decoded.shape[0]} pixels "
            f"where its header says {width} x {height}; save it again"
        )
    mask = decode_mask(sample.mask, asked.reading)
    pixels = np.bincount(mask.ravel(), minlength=256)
    undeclared = [value for value in np.flatnonzero(pixels).tolist() if classes < value < VOID]
    if undeclared:
        declared = f"declared are 0 to {classes}, and {VOID} for void"
        raise undeclared_values(undeclared, declared)
    seen = Seen(
        exif=exif,
        fits=fits,
        mask=_kind(header),
        colours={} if asked.masks else _colours(sample.mask, header, pixels),
    )
    image_sha256 = hashlib.sha256(sample.image).digest()
    mask_sha256 = hashlib.sha256(sample.mask).digest()
    sha256 = hashlib.sha256(image_sha256 + mask_sha256).digest()
    dark = remark_darkness(sample.image, decoded)
    remarks = (*sample.remarks, dark) if dark else sample.remarks
    return Row(sample._replace(remarks=remarks), width, height, pixels, sha256, seen)


def _check_photo(data: bytes, max_pixels: int) -> Header:
    """Return the header of a photo that Pillow reads to its end.

    OpenCV may fill the rest with gray.
    """
    with open_photo(data) as picture:
        size = picture.size
        check_size(*size, max_pixels, "image", INGEST_LIMIT)
        try:
            picture.load()
        except Exception as error:  # noqa: BLE001  decoders raise whatever their libraries do
            raise undecodable("image", error) from None
        return Header(*size, orientation_of(picture))


def _fit(
    photo: Header, mask: MaskHeader, mask_exif: int
) -> tuple[int, Literal["stored", "upright", "both"]]:
    """Return the orientation that the photo's EXIF asks for, and how its size fits the mask's.

    Raises:
        BadData: It does not fit, or the mask has an EXIF of its own that turns it otherwise.
    """
    if mask_exif not in (1, photo.orientation):
        raise BadData(
            f"the mask has EXIF orientation {mask_exif} and the image {photo.orientation}: "
            "save the mask as it is to be seen, without EXIF"
        )
    size = mask.width, mask.height
    stored, upright = size == photo[:2], size == photo.upright_size
    if not (stored or (upright and mask_exif == 1)):
        raise BadData(
            f"the mask is {size[0]} x {size[1]} pixels and the image {photo.width} x "
            f"{photo.height}{_turned(photo)}; they must be of one size"
        )
    if photo.orientation == 1:
        return 1, "stored"
    if mask_exif != 1:
        return 1, "stored"  # the mask's file has the photo's EXIF, so both are stored alike
    if stored and upright:
        return photo.orientation, "both"
    return photo.orientation, "upright" if upright else "stored"


def _turned(photo: Header) -> str:
    if photo.orientation == 1:
        return ""
    width, height = photo.upright_size
    return f" ({width} x {height} turned upright, as its EXIF orientation {photo.orientation} asks)"


def _kind(header: MaskHeader) -> str:
    name = KINDS[header.kind]
    return name if header.kind == PALETTE else f"{name} {header.depth}"


def _colours(data: bytes, header: MaskHeader, pixels: np.ndarray) -> dict[int, str]:
    """Return the palette's colours of the values in use, without void."""
    if header.kind != PALETTE:
        return {}
    palette = palette_of(data)
    used = [value for value in np.flatnonzero(pixels).tolist() if value < len(palette)]
    return {value: bytes(palette[value]).hex() for value in used if value != VOID}
