"""Write image files in memory, as other programs write them."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

ORIENTATION = 0x0112  # EXIF's tag


def encoded(picture: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    """Return a picture, or the pixels of one, as the bytes of a file."""
    file = io.BytesIO()
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    picture.save(file, kind, **options)
    return file.getvalue()


def with_orientation(picture: Image.Image | np.ndarray, kind: str, orientation: int) -> bytes:
    """Return a picture as a file whose EXIF asks for an orientation."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(picture, kind, exif=exif)


def gray_png(values: np.ndarray, bits: int) -> bytes:
    """Return values [H, W] as a gray PNG of 1, 2, 4, 8 or 16 bits, which Pillow cannot write."""
    height, width = values.shape
    if bits == 16:
        rows = values.astype(">u2").view(np.uint8).reshape(height, -1)
    else:
        shifts = np.arange(bits - 1, -1, -1)
        each = (values[..., None] >> shifts) & 1
        rows = np.packbits(each.reshape(height, -1).astype(np.uint8), axis=1)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def png_of_size(width: int, height: int) -> bytes:
    """Return a PNG that promises a size and holds hardly any pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 99)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def palette_picture(values: np.ndarray, colours: dict[int, tuple[int, int, int]]) -> Image.Image:
    """Return values, uint8 [H, W], as a picture with these colours in its palette."""
    picture = Image.fromarray(values).convert("P")
    palette = np.zeros((256, 3), np.uint8)
    for value, colour in colours.items():
        palette[value] = colour
    picture.putpalette(palette.tobytes())
    return picture


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
