"""Write a companion layer of a dataset's split: check its maps and store them as shards.

A layer is written like a split of a dataset (`training.data.dataset_writer`). Each row has the map
in the place of the mask, no photo and no classes. So it is fetched, verified and read like one.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import numpy as np

from training.data.dataset_writer import SHARD_BYTES, write_index
from training.data.file_index import FileIndex
from training.data.index_row import IndexRow, index_rows
from training.data.layers import decode_layer
from training.data.manifest import LAYERED, Manifest, Shard, SplitManifest, json_digest
from training.data.shard_writer import byte_offsets, name_by_digest, write_arrow
from training.data.shards import Index
from training.data.source import BadData, Sample, file_bytes
from training.data.validation import Row, Seen

NO_PIXELS = np.zeros(256, np.int64)


class WrittenLayer(NamedTuple):
    """A layer whose files are written."""

    manifest: Manifest
    without_map: list[str]  # ids of the split's images that have none
    strangers: list[str]  # names of files that belong to no image


def write_layer(
    root: Path,
    index: Index,
    folder: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
    shard_bytes: int = SHARD_BYTES,
) -> WrittenLayer:
    """Check the maps of a folder, and write their shards and index.

    Args:
        root: Folder of the maps: PNG files with the images' ids as names.
        index: Of the split whose images they belong to.
        folder: An existing folder; files are written to it as <sha256>.arrow and .parquet.
        progress: Called with the number of maps that are done, and of all.
        shard_bytes: About what a shard is to hold.

    Raises:
        BadData: No file belongs to an image, or a map cannot be used.
    """
    files = FileIndex(root, (".png",))
    ids = [id for id in index.ids if id in files]
    if not ids:
        raise BadData(
            f"{root} has no map: no PNG in it has the name of an image, such as {index.ids[0]}.png"
        )
    shards: list[Shard] = []
    rows: list[tuple[IndexRow, ...]] = []
    for batch in _batches(_checked(ids, files, index, progress), shard_bytes):
        partial_file = folder / f"{uuid4().hex}.partial"
        write_arrow(batch, partial_file)
        rows.append(index_rows(batch, byte_offsets(partial_file)))
        stored = name_by_digest(partial_file, ".arrow")
        shards.append(Shard(sha256=stored.sha256, bytes=stored.bytes, rows=len(batch)))
    flat = list(chain.from_iterable(rows))
    split = SplitManifest(
        index=write_index(rows, [1] * len(flat), folder),
        shards=tuple(shards),
        rows=len(flat),
        content=json_digest([(row.id, row.row_sha256) for row in flat]),
    )
    strangers = files.names.keys() - set(index.ids)
    return WrittenLayer(
        Manifest(classes=(), splits={LAYERED: split}),
        [id for id in index.ids if id not in files],
        sorted(chain.from_iterable(files.names[id] for id in strangers)),
    )


def _checked(
    ids: Sequence[str], files: FileIndex, index: Index, progress: Callable[[int, int], None]
) -> Iterator[Row]:
    """Yield the maps of images. Raise BadData for one that has not its image's size."""
    for number, id in enumerate(ids):
        files.check(id, "map")
        data = file_bytes(files.path(id), "map")
        try:
            height, width = decode_layer(data).shape
        except BadData as error:
            raise BadData(f"{files.path(id)}: {error}") from None
        wanted = tuple(index.sizes[index.row_of[id]].tolist())
        if (width, height) != wanted:
            raise BadData(
                f"{files.path(id)} is {width} x {height} pixels and its image {wanted[0]} x "
                f"{wanted[1]}: make a map of the image's own size"
            )
        digests = hashlib.sha256(b"").digest() + hashlib.sha256(data).digest()
        sha256 = hashlib.sha256(digests).digest()
        yield Row(Sample(id, b"", data), width, height, NO_PIXELS, sha256, Seen())
        progress(number + 1, len(ids))


def _batches(rows: Iterator[Row], shard_bytes: int) -> Iterator[list[Row]]:
    """Yield the rows of one shard after another."""
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row.sample.mask)
        if size >= shard_bytes:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
