"""Open a split of a stored dataset, and fetch its shards when they are needed.

Training begins when the shards of its first batch are on this machine. Threads fetch the others
meanwhile, in the order in which they will be needed. A process that needs a shard which is not here
yet fetches it, or waits for the process that does.

A step that selects few images of many reads only the byte ranges of its rows, if that is cheaper
than whole shards (`orchestrator.datasets.row_ranges`).
"""

import contextlib
import hashlib
import mmap
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from orchestrator.datasets.catalog import how_to_mend, load_index
from orchestrator.datasets.row_ranges import cost_of_rows, fetch_rows
from orchestrator.records import layout
from orchestrator.store.base import Store, StoreError, is_local
from orchestrator.store.cache import fetch
from orchestrator.store.cache_folder import CacheError, hold, object_path, obtain
from training.data.manifest import Manifest, Shard
from training.data.shards import LocalSplit, Unavailable

# Ranges of a shard are read if they cost less than this share of it, because a whole shard also
# serves the steps that follow.
WORTH = 0.5

# Threads that fetch shards ahead.
THREADS = 4


class DataError(StoreError, Unavailable):
    """An image cannot be read from the store. The message names it, its dataset and its shard."""


class UnusableCache(CacheError, Unavailable):
    """An image cannot be kept in the cache. The message names it, too; a retry would not help."""


@dataclass(frozen=True, kw_only=True)
class StoredSplit(LocalSplit):
    """A split whose shards are fetched when they are needed.

    It pickles, and may be carried over a fork.
    """

    store: Store
    files: tuple[Shard, ...]
    cache_root: Path
    selected: np.ndarray | None  # rows that will be read, None for all
    masks: bool  # whether their masks will be read

    def open_shard(self, row: int) -> np.ndarray:
        """Return the mapped shard that holds `row`. Raise DataError or UnusableCache.

        The shard stays in the cache while the array lives.
        """
        number = int(self.index.shard[row])
        try:
            with hold(partial(self._obtain, number)) as file:
                return _map_file(file)
        except StoreError as error:
            kind = UnusableCache if isinstance(error, CacheError) else DataError
            raise kind(
                f"row {row} (id {self.index.ids[row]}) of {self.name} is in shard {number} of "
                f"{len(self.files)}, which cannot be used: {error}"
            ) from error

    @contextlib.contextmanager
    def prefetching(self, rows: np.ndarray) -> Iterator[None]:
        """Fetch the shards of `rows` in that order while the context lasts.

        Processes must be forked before it is entered, because a fork must not happen while a thread
        holds a lock.
        """
        numbers = iter(dict.fromkeys(self.index.shard[rows].tolist()))
        stopped = threading.Event()

        def work() -> None:
            for number in numbers:
                if stopped.is_set():
                    return
                # The process that needs the shard meets the error too, and names its row.
                with contextlib.suppress(StoreError):
                    self._obtain(number)

        threads = [
            threading.Thread(target=work, name="prefetch", daemon=True) for _ in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stopped.set()
            # No thread may hold a lock when the process is forked next.
            for thread in threads:
                thread.join()

    def _obtain(self, number: int) -> Path:
        """Return the path of the shard's file, or of one with only the needed rows in it."""
        shard = self.files[number]
        key = layout.shard(shard.sha256)
        mend = how_to_mend(self.classes)
        rows = self._few_rows(number)
        if rows is None or object_path(self.cache_root, f"{shard.sha256}.arrow").exists():
            return fetch(self.store, key, shard.sha256, self.cache_root, mend)
        selection = np.asarray([self.masks, *rows], np.int64).tobytes()
        name = f"{shard.sha256}-{hashlib.sha256(selection).hexdigest()[:16]}.arrow"
        make = partial(
            fetch_rows, self.store, key, shard.bytes, self.index, rows, self.masks, mend=mend
        )
        return obtain(name, self.cache_root, make)

    def _few_rows(self, number: int) -> np.ndarray | None:
        """Return the needed rows of a shard, or None if it is cheaper to read the whole shard."""
        if self.selected is None or is_local(self.store):
            return None
        rows = self.selected[self.index.shard[self.selected] == number]
        cost = cost_of_rows(self.index, rows)
        return rows if cost < WORTH * self.files[number].bytes else None


def open_stored_split(
    store: Store,
    manifest: Manifest,
    split: str,
    cache_root: Path,
    *,
    dataset: str = "the dataset",
    rows: np.ndarray | None = None,
    masks: bool = True,
) -> LocalSplit:
    """Return a split as training sees it. Its index is fetched now, its shards when needed.

    Args:
        store: The store that holds the dataset.
        manifest: The dataset's manifest.
        split: Name of the split.
        cache_root: Folder of the cache.
        dataset: How messages call the dataset.
        rows: The only rows that will be read; None for all.
        masks: Whether their masks will be read.

    Raises:
        UnknownDataset: The dataset has no such split.
        StoreError: The store does not answer.
    """
    index = load_index(store, manifest, split, cache_root)
    files = manifest.splits[split]
    shards = tuple(object_path(cache_root, f"{shard.sha256}.arrow") for shard in files.shards)
    return StoredSplit(
        index=index,
        shards=shards,
        classes=manifest.classes,
        content=files.content,
        name=f"{dataset}, split {split}",
        reading=manifest.reading,
        store=store,
        files=files.shards,
        cache_root=cache_root,
        selected=None if rows is None else np.unique(rows),
        masks=masks,
    )


def _map_file(file: BinaryIO) -> np.ndarray:
    """Return the file's bytes, uint8.

    The map has a duplicate of the descriptor, so the lock lasts as long as the array.
    """
    return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
