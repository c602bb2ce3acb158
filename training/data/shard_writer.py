"""A part of a split: the run of images that becomes one shard, looked at and written without knowing of any other.

Where one part ends and the next begins follows from the sizes of the images' files in the list's order, so that any number of
processes, on any number of machines, write the same shards. A part has a key, a digest of everything that decides what
becomes of it, by which work that was done is found again.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import numpy as np
import pyarrow as pa

from training.config import VOID, Document
from training.data.manifest import Shard, StoredFile
from training.data.source import BadData, FromFiles, LeftOut, Source
from training.data.validation import BadRow, Row, examine

FORMAT = 1  # of shards and of what is checked of a row: part of every key
DRAWN_BYTES = 8192  # what a sample that is made of no files counts for
BATCH_ROWS = 16  # of an Arrow record batch
SHARD_SCHEMA = pa.schema(
    [("id", pa.string()), ("image", pa.binary()), ("mask", pa.binary())],
    metadata={"stepchain": "1"},
)


class IndexRow(Document):
    """What a row of a shard holds: see INDEX_SCHEMA in training/data/shards.py."""

    id: str
    row: int
    width: int
    height: int
    values: tuple[int, ...]
    pixels: tuple[int, ...]
    image_offset: int
    image_bytes: int
    mask_offset: int
    mask_bytes: int
    row_sha256: str


class ShardJob(NamedTuple):
    """Images of a split, in its order."""

    split: str
    ids: tuple[str, ...]
    key: str


class WrittenShard(Document):
    """What became of a part: a shard, unless no image is usable, what its rows hold, and the rows that cannot be used."""

    shard: Shard | None
    rows: tuple[IndexRow, ...]
    bad: tuple[BadRow, ...]


def divide(source: Source, split: str, ids: Sequence[str], shard_bytes: int) -> Iterator[ShardJob]:
    """Cut a split where the files of the images before add up to `shard_bytes`."""
    pending: list[str] = []
    stamps: list[str] = []
    size = 0
    with ThreadPoolExecutor(16) as pool:  # a file system on the network takes its time to answer
        for id, (weight, stamp) in zip(
            ids, pool.map(lambda id: _look(source, split, id), ids), strict=True
        ):
            pending.append(id)
            stamps.append(stamp)
            size += weight
            if size >= shard_bytes:
                yield ShardJob(split, tuple(pending), _key(source, split, pending, stamps))
                pending, stamps, size = [], [], 0
    if pending:
        yield ShardJob(split, tuple(pending), _key(source, split, pending, stamps))


def current_key(source: Source, part: ShardJob) -> str:
    """The part's key as this machine sees its files, now."""
    return _key(source, part.split, part.ids, [_look(source, part.split, id)[1] for id in part.ids])


def write_shard(
    source: Source,
    part: ShardJob,
    folder: Path,
    advance: Callable[[], object] = lambda: None,
    threads: int | None = None,
) -> WrittenShard:
    """Look at every image of the part and write the usable ones to `folder` as <sha256>.arrow. Calls `advance` after each.

    `threads`: that read and decode; by default as many as the machine has CPUs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows, bad = [], []
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        for found in pool.map(lambda id: examine(source, part.split, id), part.ids):
            advance()
            if isinstance(found, Row):
                rows.append(found)
            elif found:
                bad.append(found)
    if not rows:
        return WrittenShard(shard=None, rows=(), bad=tuple(bad))
    shard, entries = _write_shard(rows, folder)
    return WrittenShard(shard=shard, rows=tuple(entries), bad=tuple(bad))


def name_by_digest(path: Path, suffix: str) -> StoredFile:
    """Rename a finished file to its digest."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    size = path.stat().st_size
    path.replace(path.with_name(sha256 + suffix))
    return StoredFile(sha256=sha256, bytes=size)


def _look(source: Source, split: str, id: str) -> tuple[int, str]:
    """How many bytes a sample is made of, and what changes when they do."""
    if not isinstance(source, FromFiles):
        try:
            sample = source.read(split, id)
        except (BadData, LeftOut) as error:
            return 0, repr(error)
        return len(sample.image) + len(sample.mask), hashlib.sha256(
            sample.image + b"/" + sample.mask
        ).hexdigest()
    paths = source.files(split, id)
    sizes, stamp = 0 if paths else DRAWN_BYTES, []
    for path in paths:
        try:
            found = path.stat()
        except OSError:
            stamp.append("absent")
            continue
        sizes += found.st_size
        stamp.append(f"{path.name} {found.st_size} {found.st_mtime_ns}")
    return sizes, ", ".join(stamp)


def _key(source: Source, split: str, ids: Sequence[str], stamps: Sequence[str]) -> str:
    recipe = source.recipe if isinstance(source, FromFiles) else ""
    decides = [
        FORMAT,
        BATCH_ROWS,
        type(source).__name__,
        recipe,
        source.classes,
        split,
        list(ids),
        list(stamps),
    ]
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()


def _write_shard(rows: list[Row], folder: Path) -> tuple[Shard, list[IndexRow]]:
    partial_file = folder / f"{uuid4().hex}.partial"
    with pa.OSFile(str(partial_file), "wb") as sink, pa.ipc.new_file(sink, SHARD_SCHEMA) as writer:
        for start in range(0, len(rows), BATCH_ROWS):
            samples = [row.sample for row in rows[start : start + BATCH_ROWS]]
            columns = [
                pa.array(values, kind.type)
                for values, kind in zip(zip(*samples, strict=True), SHARD_SCHEMA, strict=True)
            ]
            writer.write_batch(pa.record_batch(columns, schema=SHARD_SCHEMA))
    entries = []
    for number, (row, (image_offset, mask_offset)) in enumerate(
        zip(rows, _byte_offsets(partial_file), strict=True)
    ):
        values = np.flatnonzero(row.pixels[:VOID])
        entry = IndexRow(
            id=row.sample.id,
            row=number,
            width=row.width,
            height=row.height,
            values=tuple(values.tolist()),
            pixels=tuple(row.pixels[values].tolist()),
            image_offset=image_offset,
            image_bytes=len(row.sample.image),
            mask_offset=mask_offset,
            mask_bytes=len(row.sample.mask),
            row_sha256=row.sha256.hex(),
        )
        entries.append(entry)
    return Shard(**name_by_digest(partial_file, ".arrow").model_dump(), rows=len(rows)), entries


def _byte_offsets(shard: Path) -> list[tuple[int, int]]:
    """Where each row's image and mask start in the file."""
    result: list[tuple[int, int]] = []
    with pa.memory_map(str(shard)) as file:
        origin = file.read_buffer(1).address
        file.seek(0)
        reader = pa.ipc.open_file(file)
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            starts = []
            for name in ("image", "mask"):
                _, offsets, data = batch.column(name).buffers()
                within = np.frombuffer(offsets, np.int32)[: batch.num_rows].astype(np.int64)
                starts.append(data.address - origin + within)
            result += zip(*(column.tolist() for column in starts), strict=True)
    return result
