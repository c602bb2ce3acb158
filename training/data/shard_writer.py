"""Check a run of images and write those that can be used as one shard of a split.

Where one shard ends and the next begins follows from the sizes of the images' files, in the list's
order. Any number of processes, on any number of machines, therefore write the same shards. A shard
job has a key: a digest of everything that decides what the job writes. By the key, work that was
done before is found again.
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

from training.config import Document
from training.data.index_row import IndexRow, index_rows
from training.data.manifest import Shard, StoredFile
from training.data.reading import NOTHING_ASKED, Asked
from training.data.source import BadData, FromFiles, LeftOut, Source
from training.data.validation import BadRow, Row, examine

# The version of the shards and of the checks of a row. It enters every job's key.
FORMAT = 2
# The size that a sample without files is counted with.
DRAWN_BYTES = 8192
BATCH_ROWS = 16  # of an Arrow record batch
# Sizes are read by many threads, because a network file system answers slowly.
STAT_THREADS = 16
SHARD_SCHEMA = pa.schema(
    [("id", pa.string()), ("image", pa.binary()), ("mask", pa.binary())],
    metadata={"stepchain": "1"},
)


class ShardJob(NamedTuple):
    """Images of a split, in the split's order, that become one shard."""

    split: str
    ids: tuple[str, ...]
    key: str
    asked: Asked = NOTHING_ASKED


class WrittenShard(Document):
    """The result of a shard job."""

    shard: Shard | None  # None when no image can be used
    rows: tuple[IndexRow, ...]
    bad: tuple[BadRow, ...]  # images that cannot be used


def divide(
    source: Source, split: str, ids: Sequence[str], shard_bytes: int, asked: Asked = NOTHING_ASKED
) -> Iterator[ShardJob]:
    """Divide images of a split among shard jobs.

    Args:
        source: The dataset.
        split: The name of the split.
        ids: The images, in the split's order.
        shard_bytes: A job ends with the image whose files bring its sum to this size.
        asked: How files are to be read.

    Yields:
        The jobs, in order.
    """
    job_ids: list[str] = []
    job_stamps: list[str] = []
    size = 0

    def job() -> ShardJob:
        key = _key(source, split, job_ids, job_stamps, asked)
        return ShardJob(split, tuple(job_ids), key, asked)

    with ThreadPoolExecutor(STAT_THREADS) as pool:
        looked_up = pool.map(lambda id: _size_and_stamp(source, split, id), ids)
        for id, (sample_bytes, stamp) in zip(ids, looked_up, strict=True):
            job_ids.append(id)
            job_stamps.append(stamp)
            size += sample_bytes
            if size >= shard_bytes:
                yield job()
                job_ids = []
                job_stamps = []
                size = 0
    if job_ids:
        yield job()


def current_key(source: Source, job: ShardJob) -> str:
    """Return the key that the job has by the files as they are now, as this machine sees them."""
    stamps = [_size_and_stamp(source, job.split, id)[1] for id in job.ids]
    return _key(source, job.split, job.ids, stamps, job.asked)


def write_shard(
    source: Source,
    job: ShardJob,
    folder: Path,
    advance: Callable[[], object] = lambda: None,
    threads: int | None = None,
) -> WrittenShard:
    """Check every image of a job, and write those that can be used as one shard.

    Args:
        source: The dataset.
        job: The images.
        folder: The shard is written here as <sha256>.arrow; the folder is made if it is missing.
        advance: Called after each image.
        threads: Number of threads that read and decode; by default the machine's number of CPUs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    bad: list[BadRow] = []
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        for result in pool.map(lambda id: examine(source, job.split, id, job.asked), job.ids):
            advance()
            if isinstance(result, Row):
                rows.append(result)
            elif result:
                bad.append(result)
    if not rows:
        return WrittenShard(shard=None, rows=(), bad=tuple(bad))
    partial_file = folder / f"{uuid4().hex}.partial"
    write_arrow(rows, partial_file)
    entries = index_rows(rows, byte_offsets(partial_file))
    stored = name_by_digest(partial_file, ".arrow")
    shard = Shard(sha256=stored.sha256, bytes=stored.bytes, rows=len(rows))
    return WrittenShard(shard=shard, rows=entries, bad=tuple(bad))


def name_by_digest(path: Path, suffix: str) -> StoredFile:
    """Rename a finished file to its sha256 and `suffix`, in its folder."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    size = path.stat().st_size
    path.replace(path.with_name(sha256 + suffix))
    return StoredFile(sha256=sha256, bytes=size)


def _size_and_stamp(source: Source, split: str, id: str) -> tuple[int, str]:
    """Return the bytes of a sample, and a text that changes when the sample may have changed."""
    if not isinstance(source, FromFiles):
        return _read_size_and_stamp(source, split, id)
    paths = source.files(split, id)
    size = 0 if paths else DRAWN_BYTES
    stamp = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            stamp.append("absent")
            continue
        size += status.st_size
        stamp.append(f"{path.name} {status.st_size} {status.st_mtime_ns}")
    return size, ", ".join(stamp)


def _read_size_and_stamp(source: Source, split: str, id: str) -> tuple[int, str]:
    try:
        sample = source.read(split, id)
    except (BadData, LeftOut) as error:
        return 0, repr(error)
    stamp = hashlib.sha256(sample.image + b"/" + sample.mask).hexdigest()
    return len(sample.image) + len(sample.mask), stamp


def _key(
    source: Source, split: str, ids: Sequence[str], stamps: Sequence[str], asked: Asked
) -> str:
    recipe = source.recipe if isinstance(source, FromFiles) else ""
    decisive = [
        FORMAT,
        BATCH_ROWS,
        type(source).__name__,
        recipe,
        source.classes,
        split,
        list(ids),
        list(stamps),
        asked.reading.model_dump(),
    ]
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()


def write_arrow(rows: Sequence[Row], path: Path) -> None:
    """Write the rows of a shard as an Arrow file."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SHARD_SCHEMA) as writer:
        for start in range(0, len(rows), BATCH_ROWS):
            samples = [row.sample for row in rows[start : start + BATCH_ROWS]]
            columns = [
                pa.array([sample.id for sample in samples], pa.string()),
                pa.array([sample.image for sample in samples], pa.binary()),
                pa.array([sample.mask for sample in samples], pa.binary()),
            ]
            writer.write_batch(pa.record_batch(columns, schema=SHARD_SCHEMA))


def byte_offsets(path: Path) -> list[tuple[int, int]]:
    """Return where each row's image and mask start in an Arrow file, in bytes."""
    result: list[tuple[int, int]] = []
    with pa.memory_map(str(path)) as file:
        origin = file.read_buffer(1).address
        file.seek(0)
        reader = pa.ipc.open_file(file)
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            starts = []
            for name in ("image", "mask"):
                _, offsets, data = batch.column(name).buffers()
                # The batch's first value lies at data.address; Arrow counts the others from there.
                within = np.frombuffer(offsets, np.int32)[: batch.num_rows].astype(np.int64)
                # Where all values are empty there are no bytes to lie anywhere.
                starts.append((data.address - origin if data else 0) + within)
            images, masks = starts
            result += zip(images.tolist(), masks.tolist(), strict=True)
    return result
