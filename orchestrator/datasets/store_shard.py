"""Check the images of one shard and put the shard into the store.

The store keeps a note of each finished job. The note is a digest, followed by the JSON document
that the digest covers. The document describes the rows of the job's shard.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from orchestrator.records import layout
from orchestrator.store.base import READERS, Store
from orchestrator.store.canonical import canonical_json, digest
from training.data.agreement import check_masks
from training.data.shard_writer import ShardJob, WrittenShard, write_shard
from training.data.source import Source


class StoredShard(NamedTuple):
    """A shard in the store."""

    written: WrittenShard
    uploaded: int  # bytes that were uploaded, 0 if the store had the shard


def stored_shards(store: Store, jobs: Sequence[ShardJob]) -> dict[str, WrittenShard]:
    """Return the results of the jobs that are noted in the store, by the keys of the jobs.

    A job whose note is damaged, or whose shard is gone, is not among them and must be done again.
    """
    notes = set(store.list(layout.SHARD_NOTES))
    shards = set(store.list(layout.SHARDS))
    noted = [job.key for job in jobs if layout.shard_note(job.key) in notes]
    with ThreadPoolExecutor(READERS) as readers:
        found = list(readers.map(lambda key: _read_note(store, key), noted))
    whole = {}
    for key, written in zip(noted, found, strict=True):
        if written is None:
            continue
        if written.shard is None or layout.shard(written.shard.sha256) in shards:
            whole[key] = written
    return whole


def store_shard(
    store: Store,
    source: Source,
    job: ShardJob,
    advance: Callable[[], object] = lambda: None,
    threads: int | None = None,
) -> StoredShard:
    """Check the images of a shard job, and store the shard and a note of the job.

    There is no note if an image cannot be used, so that the job is done again.

    Args:
        store: The store to write to.
        source: The images and masks.
        job: The images of the shard.
        advance: Called after each image.
        threads: Threads that check images; by default as many as there are CPUs.

    Raises:
        BadData: What the masks mean must be asked.
    """
    with TemporaryDirectory(prefix="stepchain-ingest-") as scratch:
        written = write_shard(source, job, Path(scratch), advance, threads)
        # What must be asked is asked before anything is uploaded.
        check_masks(written.rows, source.classes, job.asked)
        uploaded = _upload_unless_stored(store, written, Path(scratch))
    if not written.bad:
        data = canonical_json(written)
        store.write(layout.shard_note(job.key), digest(data).encode() + b"\n" + data)
    return StoredShard(written, uploaded)


def _upload_unless_stored(store: Store, written: WrittenShard, folder: Path) -> int:
    """Upload the shard unless the store has it. Return the bytes that were uploaded."""
    if written.shard is None:
        return 0
    key = layout.shard(written.shard.sha256)
    if store.exists(key):
        return 0
    store.upload(folder / f"{written.shard.sha256}.arrow", key)
    return written.shard.bytes


def _read_note(store: Store, job: str) -> WrittenShard | None:
    """Return the result that the note of a job holds, or None if the note was damaged."""
    identity, _, data = store.read(layout.shard_note(job)).partition(b"\n")
    return WrittenShard.model_validate_json(data) if digest(data).encode() == identity else None
