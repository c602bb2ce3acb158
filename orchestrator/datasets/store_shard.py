"""Check the images of one shard and put the shard into the store."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from orchestrator.datasets.catalog import REQUESTS
from orchestrator.records import layout
from orchestrator.store.base import Store
from orchestrator.store.canonical import canonical_json, digest
from training.data.shard_writer import ShardJob, WrittenShard, write_shard
from training.data.source import Source


class StoredShard(NamedTuple):
    """A part in the store."""

    part: WrittenShard
    uploaded: int  # bytes of its shard, 0 where the store had it


def stored_shards(store: Store, parts: Sequence[ShardJob]) -> dict[str, WrittenShard]:
    """What became of those parts that are in the store whole, by their keys."""
    notes, shards = set(store.list(layout.SHARD_NOTES)), set(store.list(layout.SHARDS))
    noted = [part.key for part in parts if layout.shard_note(part.key) in notes]
    with ThreadPoolExecutor(REQUESTS) as pool:
        found = [
            _opened(data)
            for data in pool.map(lambda key: store.read(layout.shard_note(key)), noted)
        ]
    return {
        key: part
        for key, part in zip(noted, found, strict=True)
        if part and (part.shard is None or layout.shard(part.shard.sha256) in shards)
    }


def store_shard(
    store: Store,
    source: Source,
    part: ShardJob,
    advance: Callable[[], object] = lambda: None,
    threads: int | None = None,
) -> StoredShard:
    """Look at the part's images, store its shard unless the store has it, and note what became of it if all can be used."""
    with TemporaryDirectory(prefix="stepchain-ingest-") as scratch:
        written = write_shard(source, part, Path(scratch), advance, threads)
        uploaded = 0
        if written.shard and not store.exists(layout.shard(written.shard.sha256)):
            store.upload(
                Path(scratch) / f"{written.shard.sha256}.arrow", layout.shard(written.shard.sha256)
            )
            uploaded = written.shard.bytes
    if not written.bad:
        data = canonical_json(written)
        store.write(layout.shard_note(part.key), digest(data).encode() + b"\n" + data)
    return StoredShard(written, uploaded)


def _opened(note: bytes) -> WrittenShard | None:
    """What a note says; None where it is not what was written, so that its part is looked at again."""
    identity, _, data = note.partition(b"\n")
    return WrittenShard.model_validate_json(data) if digest(data).encode() == identity else None
