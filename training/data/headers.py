"""Look at the headers of image files: their format, size and EXIF, before any pixel is decoded.

Pillow's classes for each format are called directly. `Image.open` would try formats that run other
programs, and it refuses large images by a limit of the whole process.
"""

import io
import struct
from typing import NamedTuple

from PIL import ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from training.data.reading import MAX_PIXELS
from training.data.source import BadData

ORIENTATION = 0x0112  # EXIF's tag
BITS_PER_SAMPLE = 258  # TIFF's tag
INGEST_LIMIT = "--max-pixels"  # the option of jobs.ingest for datasets
PHOTOS = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WebP": WebPImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
}
# First bytes of a file, from some offset on, and its format.
SIGNATURES = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WebP"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"GIF8", "GIF"),
    (4, b"ftypheic", "HEIC"),
    (4, b"ftypheix", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (4, b"ftypavif", "AVIF"),
    (4, b"jP  ", "JPEG 2000"),
    (0, b"%PDF", "PDF"),
    (0, b"<svg", "SVG"),
    (0, b"<!DOCTYPE", "web page"),
    (0, b"<html", "web page"),
    (0, b"version https://git-lfs", "pointer of Git LFS"),
)


class Header(NamedTuple):
    """What a photo's file says before its pixels."""

    width: int  # pixels, as stored
    height: int  # pixels, as stored
    orientation: int  # EXIF's, 1 to 8; 1 is upright

    @property
    def upright_size(self) -> tuple[int, int]:
        """Return width and height as viewers show the photo."""
        turns = self.orientation >= 5
        return (self.height, self.width) if turns else (self.width, self.height)


def file_format(data: bytes) -> str | None:
    """Return the name of a file's format by its first bytes, or None if it is not known."""
    for start, signature, name in SIGNATURES:
        if data[start : start + len(signature)] == signature:
            return name
    return None


def open_photo(data: bytes) -> ImageFile.ImageFile:
    """Open a photo's file with Pillow, without decoding its pixels.

    Raises:
        BadData: The file is none of the formats in PHOTOS, or its header cannot be read.
    """
    name = file_format(data)
    if name not in PHOTOS:
        found = "empty" if not data else f"a {name}" if name else "none that is known here"
        raise BadData(f"the image cannot be decoded: the file is {found}; save it as a JPEG or PNG")
    try:
        return PHOTOS[name](io.BytesIO(data))
    except Exception as error:  # noqa: BLE001  decoders raise whatever their libraries do
        raise undecodable("image", error) from None


def photo_header(data: bytes, max_pixels: int = MAX_PIXELS) -> Header:
    """Return what a photo's file says of itself.

    Raises:
        BadData: The file is no photo, or has more than `max_pixels` pixels.
    """
    with open_photo(data) as picture:
        check_size(*picture.size, max_pixels, "image", INGEST_LIMIT)
        return Header(*picture.size, orientation_of(picture))


def sample_bits(data: bytes) -> int:
    """Return the bits of a PNG's or TIFF's samples, and 8 for other photos."""
    name = file_format(data)
    if name == "PNG":
        return mask_header(data).depth
    if name == "TIFF":
        with open_photo(data) as picture:
            bits = picture.tag_v2.get(BITS_PER_SAMPLE) if isinstance(picture, TiffImageFile) else 0
        return max(bits) if isinstance(bits, tuple) else bits or 1
    return 8


def orientation_of(picture: ImageFile.ImageFile) -> int:
    """Return the orientation that a file's EXIF asks for, 1 to 8, and 1 where it asks for none."""
    if isinstance(picture, TiffImageFile):
        return 1  # Pillow and OpenCV decode a TIFF upright
    try:
        orientation = picture.getexif().get(ORIENTATION)
    except Exception:  # noqa: BLE001  a damaged EXIF turns the photo in no viewer
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def check_size(width: int, height: int, max_pixels: int, what: str, raised_by: str = "") -> None:
    """Raise BadData for an image without pixels, or with more than `max_pixels`.

    The message names the option that raises the limit, where a command has one.
    """
    if width < 1 or height < 1:
        raise BadData(f"the {what} is {width} x {height} pixels: there is nothing to see")
    if width * height > max_pixels:
        advice = f", or raise the limit with {raised_by}" if raised_by else ""
        raise BadData(
            f"the {what} is {width} x {height} = {width * height:,} pixels, and at most "
            f"{max_pixels:,} are read: make it smaller{advice}"
        )


class MaskHeader(NamedTuple):
    """The header of a PNG file."""

    width: int  # pixels
    height: int  # pixels
    depth: int  # bits of a sample
    kind: int  # PNG's colour type: 0 gray, 2 RGB, 3 palette, 4 gray with alpha, 6 RGB with alpha


def mask_header(data: bytes) -> MaskHeader:
    """Return the header of a mask's file.

    Raises:
        BadData: The file is no PNG.
    """
    name = file_format(data)
    if name != "PNG" or data[12:16] != b"IHDR" or len(data) < 26:
        found = "empty" if not data else f"a {name}" if name else "no PNG"
        raise BadData(
            f"the mask cannot be decoded: the file is {found}; save it as a PNG with a palette or "
            "8-bit gray"
        )
    return MaskHeader(*struct.unpack(">IIBB", data[16:26]))


def undecodable(what: str, error: Exception) -> BadData:
    """Return the error of an image that its decoder refuses, with the decoder's reason."""
    # Decoders raise OSError and SyntaxError for what is broken; others are named.
    named = isinstance(error, (OSError, SyntaxError))
    kind = "" if named else f"{type(error).__name__}: "
    reason = str(error) or "no reason is given"
    return BadData(
        f"the {what} cannot be decoded: {kind}{reason}; save it again with a program that opens "
        "it, or take it out"
    )
