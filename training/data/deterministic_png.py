"""Write masks as PNG files whose bytes follow from their pixels alone.

A step's identity covers the bytes of its masks. What a PNG library writes depends on its version,
its build and sometimes the processor. Masks that are made here, such as rasterised polygons, are
therefore packed by this module. Each row is stored as its difference to the row above, which is
zero for most of a mask. Runs of equal bytes are stored in deflate's fixed Huffman codes. Any PNG
reader opens the files.
"""

import struct
import zlib
from functools import lru_cache

import numpy as np

UP = 2  # PNG's filter type: the difference to the row above
LONGEST = 258  # bytes that one deflate code can repeat
ONE_BACK = "00000"  # deflate's distance code: repeat the previous byte


def encode_mask(mask: np.ndarray) -> bytes:
    """Return a mask, uint8 [height, width], as an 8-bit gray PNG, the same on every machine."""
    height, width = mask.shape
    rows = np.empty((height, width + 1), np.uint8)
    rows[:, 0] = UP
    rows[0, 1:] = mask[0]
    np.subtract(mask[1:], mask[:-1], out=rows[1:, 1:])  # modulo 256, as PNG wants it
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", _deflate(rows.ravel()))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _deflate(data: np.ndarray) -> bytes:
    """Return the zlib stream (RFC 1950, 1951) of uint8 [n], in one block of fixed codes."""
    starts = np.flatnonzero(np.concatenate([[True], data[1:] != data[:-1]]))
    lengths = np.diff(starts, append=len(data))
    runs = zip(data[starts].tolist(), lengths.tolist(), strict=True)
    codes = "".join([_run(value, length) for value, length in runs])
    # 1: this block is the last one. 10: its codes are fixed.
    bits = "110" + codes + _literal(256)
    packed = np.packbits(np.frombuffer(bits.encode(), np.uint8) & 1, bitorder="little").tobytes()
    return b"\x78\x01" + packed + struct.pack(">I", zlib.adler32(data.tobytes()))


@lru_cache(1 << 16)
def _run(value: int, length: int) -> str:
    """Return the codes of a run of equal bytes: the byte, then how often to repeat it."""
    bits = _literal(value)
    rest = length - 1
    while rest >= 3:
        repeated = min(rest, LONGEST)
        bits += _length(repeated) + ONE_BACK
        rest -= repeated
    return bits + _literal(value) * rest


def _literal(symbol: int) -> str:
    """Return a symbol's fixed code: 0 to 255 are bytes, 256 the end, 257 to 287 lengths."""
    if symbol < 144:
        return f"{0x30 + symbol:08b}"
    if symbol < 256:
        return f"{0x190 + symbol - 144:09b}"
    if symbol < 280:
        return f"{symbol - 256:07b}"
    return f"{0xC0 + symbol - 280:08b}"


def _length(length: int) -> str:
    """Return the code of a length of 3 to 258, with the extra bits that follow it."""
    if length == LONGEST:
        return _literal(285)
    offset = length - 3
    if offset < 8:
        return _literal(257 + offset)
    extra = offset.bit_length() - 3  # number of extra bits
    symbol = 257 + 4 * extra + (offset >> extra)
    extra_bits = f"{offset & ((1 << extra) - 1):0{extra}b}"
    # Deflate writes numbers with their lowest bit first.
    return _literal(symbol) + extra_bits[::-1]
