"""Decode photos of any format for prediction, more liberally than a dataset's are read.

Files that a dataset may hold have the pixels that training and evaluation would see, upright.
Others are read by Pillow. Alpha is ignored, as in training, and samples of 16 bits lose their lower
eight.
"""

import io

import numpy as np
from PIL import Image, ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.PpmImagePlugin import PpmImageFile

from training.data.headers import (
    check_size,
    file_format,
    open_photo,
    orientation_of,
    sample_bits,
    undecodable,
)
from training.data.source import BadData, Remark
from training.data.transforms import decode_image, turn

MOST_PIXELS = 1 << 28  # a GB when decoded

# Photos of 16 bits with no sample above this, of 255, have at most 14 bits.
DARK = 64
DARK_PHOTOS = "photos of 16 bits use only low values and are read nearly black: save them as 8 bits"

# Formats that Pillow reads without another program, and that no dataset holds.
OTHERS = {
    "GIF": GifImageFile,
    "AVIF": AvifImageFile,
    "JPEG 2000": Jpeg2KImageFile,
    "PPM": PpmImageFile,
}


def decode_photo(data: bytes) -> np.ndarray:
    """Return the RGB pixels of a photo as viewers show it, uint8 [H, W, 3].

    An animation is its first picture.

    Raises:
        BadData: The file is no photo that can be read to its end, or too large; the message says
            which.
    """
    with _open(data) as picture:
        check_size(*picture.size, MOST_PIXELS, "photo")
        if picture.mode == "F":
            raise BadData(
                "the photo has floating-point values, whose range is not known: "
                "save it with 8 or 16 bits a channel"
            )
        orientation = orientation_of(picture)
        try:
            # OpenCV fills with grey what is missing of a file.
            picture.load()
        except Exception as error:  # noqa: BLE001  decoders raise whatever their libraries do
            raise undecodable("photo", error) from None
        try:
            pixels = decode_image(data)
        except BadData:
            pixels = _by_pillow(picture)
    return turn(pixels, orientation)


def remark_darkness(data: bytes, pixels: np.ndarray) -> Remark | None:
    """Return what is to be said of a photo of 16 bits that uses only the lowest of them.

    Cameras write values of 10, 12 or 14 bits into files of 16, whose lower eight are lost.

    Args:
        data: The photo's file.
        pixels: As they were decoded, uint8.
    """
    if sample_bits(data) != 16 or pixels.max() > DARK:
        return None
    return Remark(what=DARK_PHOTOS, detail=f"brightness at most {pixels.max()} of 255")


def _open(data: bytes) -> ImageFile.ImageFile:
    """Open a photo's file with Pillow, without decoding its pixels. Raise BadData if it is none."""
    is_ppm = data[:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace()
    other = OTHERS.get("PPM" if is_ppm else file_format(data) or "")
    if other is None:
        return open_photo(data)
    try:
        return other(io.BytesIO(data))
    except Exception as error:  # noqa: BLE001  decoders raise whatever their libraries do
        raise undecodable("photo", error) from None


def _by_pillow(picture: Image.Image) -> np.ndarray:
    """Return the RGB pixels of a picture that OpenCV does not read."""
    try:
        if picture.mode.startswith("I"):
            grey = (np.asarray(picture) >> 8).clip(0, 255).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=2)
        return np.array(picture.convert("RGB"))
    except Exception as error:  # noqa: BLE001  decoders raise whatever their libraries do
        raise undecodable("photo", error) from None
