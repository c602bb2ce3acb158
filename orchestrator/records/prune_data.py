"""Find and delete files of data that no dataset names, and half-written files of a folder.

An ingest that is refused or killed leaves shards and indexes without a manifest, which its repeat
would use. A process that is killed while it writes to a folder leaves the half-written file.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from orchestrator.records import layout
from orchestrator.store.base import Store
from orchestrator.store.folder import FolderStore
from orchestrator.store.retries import DEFAULT_RETRIES
from training.data.manifest import Manifest

GRACE = DEFAULT_RETRIES.prune_grace


class LeftFile(NamedTuple):
    """A file that can be deleted."""

    name: str  # a key, or a path in the store's folder of half-written files
    reason: str
    bytes: int
    path: Path | None = None  # of a file that is no object of the store


def left_files(store: Store, grace: timedelta = GRACE) -> tuple[LeftFile, ...]:
    """Return the files that can be deleted. Reads all manifests and deletes nothing.

    Args:
        store: The store to look at.
        grace: Leave alone what was written within this period.

    Raises:
        StoreError: The store does not answer.
    """
    before = datetime.now(UTC) - grace
    return (*_unnamed(store, before), *_half_written(store, before))


def delete_left_files(store: Store, grace: timedelta = GRACE) -> tuple[LeftFile, ...]:
    """Delete what `left_files` returns now, and return it."""
    found = left_files(store, grace)
    for each in found:
        if each.path:
            each.path.unlink(missing_ok=True)
        else:
            store.delete(each.name)
    return found


def _unnamed(store: Store, before: datetime) -> Iterator[LeftFile]:
    """Yield shards and indexes that no manifest names."""
    named: set[str] = set()
    for key in list(store.list(layout.MANIFESTS)):
        try:
            manifest = Manifest.model_validate_json(store.read(key))
        except ValidationError:
            # What a manifest that cannot be read names must stay.
            return
        for split in manifest.splits.values():
            named.add(layout.index(split.index.sha256))
            named.update(layout.shard(shard.sha256) for shard in split.shards)
    for folder in (layout.SHARDS, layout.INDEXES):
        for entry in store.entries(folder):
            if entry.key not in named and entry.modified <= before:
                yield LeftFile(entry.key, "no dataset names it", entry.bytes)


def _half_written(store: Store, before: datetime) -> Iterator[LeftFile]:
    """Yield what killed processes left half written in a folder."""
    if not isinstance(store, FolderStore):
        return
    for path in store.half_written_files():
        status = path.stat()
        if datetime.fromtimestamp(status.st_mtime, UTC) <= before:
            name = path.relative_to(store.root).as_posix()
            yield LeftFile(name, "half written by a process that is gone", status.st_size, path)
