"""Turn the pixels of a mask's PNG file into class ids, by value or by colour."""

import io
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from training.config import BACKGROUND, VOID
from training.data.headers import (
    MaskHeader,
    check_size,
    mask_header,
    open_photo,
    orientation_of,
)
from training.data.reading import MOST_PIXELS, Colour, Reading
from training.data.source import BadData

GRAY, RGB, PALETTE, GRAY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6  # PNG's colour types
# From these numbers of values without a class on they look like shades: with gaps between them, as
# classes have none, and without.
SHADES, ALL_SHADES = 5, 32
ADVICE = "save it as a PNG with a palette or 8-bit gray"


def mask_ids(data: bytes, reading: Reading) -> np.ndarray:
    """Return the class ids of a mask, uint8 [H, W].

    Raises:
        BadData: The file is no PNG, or of a kind that the reading does not cover, or it holds a
            value or colour that stands for no class.
        Exception: Whatever Pillow raises for a damaged file.
    """
    header = mask_header(data)
    check_size(header.width, header.height, MOST_PIXELS, "mask")
    with PngImageFile(io.BytesIO(data)) as picture:
        if reading.masks == "pillow":
            if picture.mode not in ("P", "L"):
                raise BadData(f"the mask is a PNG of mode {picture.mode}; {ADVICE}")
            return np.array(picture)
        opaque = _without_alpha(picture, header)
        if reading.masks == "colours":
            return _by_colour(opaque, header, reading.colours)
        return _by_value(opaque, header, reading.values)


def palette_of(data: bytes) -> list[tuple[int, int, int]]:
    """Return the colours of a PNG file with a palette, by index."""
    with PngImageFile(io.BytesIO(data)) as picture:
        flat = picture.getpalette("RGB") or []
    return list(zip(flat[::3], flat[1::3], flat[2::3], strict=True))


def mask_orientation(data: bytes) -> int:
    """Return the orientation that the EXIF of a PNG file asks for, 1 to 8."""
    if b"eXIf" not in data:
        return 1
    with open_photo(data) as picture:
        return orientation_of(picture)


def png_numbers(picture: Image.Image, header: MaskHeader) -> np.ndarray:
    """Return the numbers in a PNG file, integers [H, W]: palette indices or gray."""
    if header.kind == PALETTE or header.depth >= 8:
        return np.array(picture)
    # Pillow spreads gray of fewer bits over 0 to 255.
    white = 2**header.depth - 1
    return np.array(picture.convert("L")) // np.uint8(VOID // white)


def _without_alpha(picture: Image.Image, header: MaskHeader) -> Image.Image:
    """Return a picture without its alpha channel, which must hide nothing."""
    if header.kind not in (GRAY_ALPHA, RGB_ALPHA):
        return picture
    if header.depth != 8 or picture.getextrema()[-1] != (VOID, VOID):
        raise BadData(
            "the mask has an alpha channel, and what its transparent pixels mean is not known: "
            "save it without"
        )
    return picture.convert("L" if header.kind == GRAY_ALPHA else "RGB")


def _by_value(
    picture: Image.Image, header: MaskHeader, values: tuple[tuple[int, int], ...]
) -> np.ndarray:
    if header.kind in (RGB, RGB_ALPHA):
        raise BadData(_which_colours(picture))
    numbers = png_numbers(picture, header)
    if values:
        found = _ids_of_values(values)[numbers]
        if not found.all():
            raise undeclared_values(np.unique(numbers[found == 0]).tolist())
        return _less_one(found)
    if header.depth > 8 and numbers.max() > VOID:
        raise undeclared_values([int(numbers[numbers > VOID][0])])
    return numbers.astype(np.uint8)


def _by_colour(picture: Image.Image, header: MaskHeader, colours: tuple[Colour, ...]) -> np.ndarray:
    if header.depth > 8:
        raise BadData("the mask has 16 bits, which are no colours to look at; save it with 8 bits")
    if header.kind in (RGB, RGB_ALPHA):
        # Red is the lowest byte.
        codes = np.array(picture.convert("RGBX")).view("<u4")[..., 0] & 0xFFFFFF
        found = _ids_of_codes(colours)[codes]
    else:
        codes = np.array(picture if header.kind == PALETTE else picture.convert("L"))
        shown = _colours_of_numbers(picture, header)
        found = _ids_of_codes(colours)[shown][codes]
        codes = shown[codes] if not found.all() else codes
    if not found.all():
        raise _undeclared_colour(codes, found == 0)
    return _less_one(found)


def _colours_of_numbers(picture: Image.Image, header: MaskHeader) -> np.ndarray:
    """Return the colour that each palette index or gray is shown in, uint32 [256]."""
    if header.kind != PALETTE:
        return np.arange(256, dtype=np.uint32) * 0x010101
    flat = picture.getpalette("RGB") or []
    palette = np.zeros((256, 3), np.uint32)
    palette[: len(flat) // 3] = np.reshape(flat, (-1, 3))
    return palette @ np.array([1, 1 << 8, 1 << 16], np.uint32)


# Tables hold the class id + 1, and 0 for what stands for no class. Memory that is never written
# takes no room, so that a table of all colours is small.


@lru_cache(8)
def _ids_of_codes(colours: tuple[Colour, ...]) -> np.ndarray:
    table = np.zeros(1 << 24, np.uint16)
    for red, green, blue, id in colours:
        table[red | green << 8 | blue << 16] = id + 1
    return table


@lru_cache(8)
def _ids_of_values(values: tuple[tuple[int, int], ...]) -> np.ndarray:
    table = np.zeros(1 << 16, np.uint16)
    table[BACKGROUND], table[VOID] = BACKGROUND + 1, VOID + 1
    for value, id in values:
        table[value] = id + 1
    return table


def _less_one(found: np.ndarray) -> np.ndarray:
    return (found - 1).astype(np.uint8)


def undeclared_values(values: Sequence[int], declared: str = "") -> BadData:
    """Return the error of a mask with values that stand for no class.

    Args:
        values: Those values, ascending.
        declared: Which values stand for something, in words.
    """
    has_gaps = values[-1] - values[0] >= 2 * len(values)
    if len(values) >= (SHADES if has_gaps else ALL_SHADES) and values[-1] <= VOID:
        # The same words for all masks, so that they are told once.
        return BadData(
            "the mask holds many values that stand for no class, as a mask does that was smoothed, "
            "resized or saved as JPEG: save it without, or make it black and white by a threshold; "
            f"if they are classes, name them all{declared and f' ({declared})'}"
        )
    said = f"{declared}: correct it, or " if declared else "it stands for no class: "
    return BadData(
        f"the mask holds the value {values[0]}; {said}say what it is with --values {values[0]}=NAME"
    )


def _undeclared_colour(codes: np.ndarray, undeclared: np.ndarray) -> BadData:
    row, column = np.argwhere(undeclared)[0].tolist()
    code = int(codes[row, column])
    colour = (code & 255, code >> 8 & 255, code >> 16)
    return BadData(
        f"the mask holds the colour {colour} in {np.count_nonzero(undeclared)} pixels, the first "
        f"in row {row}, column {column}, and --palette does not name it: add it there, or save the "
        "mask without smoothing"
    )


def _which_colours(picture: Image.Image) -> str:
    pixels = np.array(picture)
    gray = (pixels == pixels[..., :1]).all()
    answer = "--palette gray reads their brightness as the class id" if gray else "--palette voc"
    return (
        "the mask holds RGB colours: say which class each is, with --palette FILE of names and "
        f"colours ({answer})"
    )
