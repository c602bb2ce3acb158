"""Read only some rows of a stored shard, by byte ranges.

The rows are written to a file of the shard's size with holes. A process that maps the file
therefore sees the same bytes at the same offsets. The digest of a shard cannot verify some of its
rows. Each row is therefore verified by its own digest, which covers image and mask together. Both
are read. For a step that may not see masks, the masks are dropped before anything is written.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np

from orchestrator.store.base import Store
from orchestrator.store.cache import ANEW, CorruptedObject
from training.data.shards import Index

# Bytes that arrive in the time that a request costs, while many requests are under way.
REQUEST_BYTES = 2**18

# Ranges of one shard that are read at the same time.
CONNECTIONS = 8

Ranges = list[tuple[int, int]]  # first byte and number of bytes


def cost_of_rows(index: Index, rows: Sequence[int] | np.ndarray) -> int:
    """Return the cost of reading these rows of one shard, in bytes, requests included."""
    ranges = merged(_ranges(index, rows))
    return sum(count for _, count in ranges) + REQUEST_BYTES * len(ranges)


def merged(ranges: Ranges) -> Ranges:
    """Return the ranges in order, joined where the gap costs less to read than another request."""
    result: Ranges = []
    for first, count in sorted(ranges):
        if result and first - sum(result[-1]) <= REQUEST_BYTES:
            start, length = result[-1]
            result[-1] = start, max(length, first + count - start)
        else:
            result.append((first, count))
    return result


def fetch_rows(
    store: Store,
    key: str,
    size: int,
    index: Index,
    rows: np.ndarray,
    masks: bool,
    path: Path,
    mend: str = ANEW,
) -> None:
    """Write a file like a shard that holds only `rows`, each of them verified.

    Args:
        store: The store that holds the shard.
        key: Key of the shard.
        size: Bytes of the shard.
        index: The index of the shard's split.
        rows: Rows of the index that lie in the shard.
        masks: Whether to write their masks.
        path: The file to write.
        mend: How to mend the shard, as an error says it.

    Raises:
        CorruptedObject: A row is not what its digest says, however often it is read.
    """
    wrong: list[int] = rows.tolist()
    with path.open("wb") as file:
        file.truncate(size)
        for _ in range(store.retries.damaged_fetches):
            wrong = _write_rows(_RangeReader(store, key, index, wrong), index, wrong, masks, file)
            if not wrong:
                return
    row = wrong[0]
    raise CorruptedObject(
        f"row {row} (id {index.ids[row]}) of object {key!r} of the store {store.uri} is corrupted: "
        f"its sha256 is not {index.row_sha256[row]}; {mend}"
    )


class _RangeReader:
    """The bytes of some rows of a shard, read at once with few requests."""

    def __init__(self, store: Store, key: str, index: Index, rows: Sequence[int]) -> None:
        ranges = merged(_ranges(index, rows))
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            self._pieces = list(pool.map(lambda piece: store.read_range(key, *piece), ranges))
        self._starts = np.array([first for first, _ in ranges])

    def read(self, first: int, count: int) -> bytes:
        """Return `count` bytes of the shard from byte `first` on."""
        number = int(np.searchsorted(self._starts, first, side="right")) - 1
        offset = first - int(self._starts[number])
        return self._pieces[number][offset : offset + count]


def _write_rows(
    reader: _RangeReader, index: Index, rows: list[int], masks: bool, file: BinaryIO
) -> list[int]:
    """Write the rows that arrived as they were published, and return the others."""
    wrong = []
    for row in rows:
        image = reader.read(*index.image_range[row].tolist())
        mask = reader.read(*index.mask_range[row].tolist())
        if _row_digest(image, mask) != index.row_sha256[row]:
            wrong.append(row)
            continue
        _write_at(file, int(index.image_range[row, 0]), image)
        if masks:
            _write_at(file, int(index.mask_range[row, 0]), mask)
    return wrong


def _row_digest(image: bytes, mask: bytes) -> str:
    digests = hashlib.sha256(image).digest() + hashlib.sha256(mask).digest()
    return hashlib.sha256(digests).hexdigest()


def _write_at(file: BinaryIO, first: int, data: bytes) -> None:
    file.seek(first)
    file.write(data)


def _ranges(index: Index, rows: Sequence[int] | np.ndarray) -> Ranges:
    """Return where the images and masks of rows lie in their shard."""
    found = np.concatenate([index.image_range[rows], index.mask_range[rows]])
    return [(int(first), int(count)) for first, count in found]
