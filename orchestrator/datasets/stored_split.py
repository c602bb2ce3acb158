"""A split of a stored dataset on this machine, shard by shard as they are needed.

Training begins when the shards of its first batch are here; threads fetch the others meanwhile, in the order in which they will
be needed. Whoever needs one that is not here yet, in whatever process, fetches it or waits for the one who does.

A step that selects few images of many does without whole shards: it reads the byte ranges of its rows, where that is cheaper,
into a file of the shard's size with holes, so whoever maps it sees the same bytes at the same places. A shard's digest says
nothing about a part of it, so each row is verified by its own, which covers image and mask together: both are read, and for
a step that may not see masks those are dropped before anything is written.
"""

import contextlib
import hashlib
import mmap
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from orchestrator.datasets.catalog import load_index
from orchestrator.records import layout
from orchestrator.store.base import Store, StoreError
from orchestrator.store.cache import CorruptedObject, fetch
from orchestrator.store.cache_folder import hold, obtain
from training.data.manifest import Manifest, Shard
from training.data.shards import Index, LocalSplit, Unavailable

REQUEST_BYTES = 2**18  # that arrive in the time that a request costs, many being under way at once
WORTH = 0.5  # a whole shard also serves the steps that follow: parts of it must cost less than this share of it
THREADS = 4  # that fetch ahead
CONNECTIONS = 8  # for the ranges of one shard

Ranges = list[tuple[int, int]]  # first byte and number of bytes


class DataError(StoreError, Unavailable):
    """An image that training needs cannot be had from the store; says which, and of which dataset and shard."""


@dataclass(frozen=True, kw_only=True)
class StoredSplit(LocalSplit):
    """A split whose shards are fetched when they are needed. It pickles, and may be carried over a fork."""

    store: Store
    files: tuple[Shard, ...]
    cache_root: Path
    selected: np.ndarray | None  # rows that will be read, None for all
    masks: bool  # whether their masks will be

    def open_shard(self, row: int) -> np.ndarray:
        """The shard that holds `row`, mapped; it stays in the cache while the array lives. Raises DataError."""
        number = int(self.index.shard[row])
        try:
            with hold(partial(self._obtain, number)) as file:
                return _mapped(file)
        except StoreError as error:
            raise DataError(
                f"row {row} (id {self.index.ids[row]}) of {self.name} is in shard {number} of {len(self.files)}, which "
                f"cannot be used: {error}"
            ) from error

    @contextlib.contextmanager
    def prefetching(self, rows: np.ndarray) -> Iterator[None]:
        """Fetch the shards of `rows` in that order while the context lasts.

        Processes are to be forked before, not within: a fork must not happen while a thread holds a lock.
        """
        numbers = iter(dict.fromkeys(self.index.shard[rows].tolist()))
        stopped = threading.Event()

        def work() -> None:
            for number in numbers:
                if stopped.is_set():
                    return
                with contextlib.suppress(
                    StoreError
                ):  # whoever needs it will see for himself, and say which row he wanted
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
            for thread in threads:  # whoever forks next must find no lock held
                thread.join()

    def _obtain(self, number: int) -> Path:
        """The shard's file, or one with the rows in it that are needed."""
        shard = self.files[number]
        key = layout.shard(shard.sha256)
        rows = self._few_rows(number)
        if rows is None or (self.cache_root / "objects" / f"{shard.sha256}.arrow").exists():
            return fetch(self.store, key, shard.sha256, self.cache_root)
        digest = hashlib.sha256(np.asarray([self.masks, *rows], np.int64).tobytes()).hexdigest()[
            :16
        ]
        make = partial(_fetch_rows, self.store, key, shard.bytes, self.index, rows, self.masks)
        return obtain(f"{shard.sha256}-{digest}.arrow", self.cache_root, make)

    def _few_rows(self, number: int) -> np.ndarray | None:
        """The rows that are needed of a shard, if it is cheaper to read only them."""
        if (
            self.selected is None
            or self.store.local_path(layout.shard(self.files[number].sha256)) is not None
        ):
            return None
        rows = self.selected[self.index.shard[self.selected] == number]
        ranges = merged(_ranges(self.index, rows))
        cost = sum(count for _, count in ranges) + REQUEST_BYTES * len(ranges)
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
    """The split as training sees it, with its index here and its shards still to come.

    `rows`: the only ones that will be read, and without their masks where `masks` is False; None for all. `dataset`: how
    messages call it. Raises UnknownDataset for a split that it does not have, and StoreError.
    """
    index = load_index(store, manifest, split, cache_root)
    files = manifest.splits[split]
    shards = tuple(cache_root / "objects" / f"{shard.sha256}.arrow" for shard in files.shards)
    return StoredSplit(
        index=index,
        shards=shards,
        classes=manifest.classes,
        content=files.content,
        name=f"{dataset}, split {split}",
        store=store,
        files=files.shards,
        cache_root=cache_root,
        selected=None if rows is None else np.unique(rows),
        masks=masks,
    )


def merged(ranges: Ranges) -> Ranges:
    """The ranges, in order, with those made one whose gap costs less to read than another request."""
    result: Ranges = []
    for first, count in sorted(ranges):
        if result and first - sum(result[-1]) <= REQUEST_BYTES:
            start, length = result[-1]
            result[-1] = start, max(length, first + count - start)
        else:
            result.append((first, count))
    return result


def _ranges(index: Index, rows: Sequence[int] | np.ndarray) -> Ranges:
    """Where the images and masks of rows are in their shard."""
    found = np.concatenate([index.image_range[rows], index.mask_range[rows]])
    return [(int(first), int(count)) for first, count in found]


def _fetch_rows(
    store: Store, key: str, size: int, index: Index, rows: np.ndarray, masks: bool, path: Path
) -> None:
    """Write a file like the shard with nothing in it but `rows`, each verified. Raises CorruptedObject."""
    wrong: list[int] = rows.tolist()
    with path.open("wb") as file:
        file.truncate(size)
        for _ in range(store.retries.damaged_fetches):
            wrong = _write_rows(store, key, index, wrong, masks, file)
            if not wrong:
                return
    raise CorruptedObject(
        f"row {wrong[0]} (id {index.ids[wrong[0]]}) of object {key!r} of the store {store.uri} is corrupted: its sha256 is not "
        f"{index.row_sha256[wrong[0]]}; delete the object and publish it again"
    )


def _write_rows(
    store: Store, key: str, index: Index, rows: list[int], masks: bool, file: BinaryIO
) -> list[int]:
    """Write those of the rows that arrive as they were published; returns the others."""
    wanted = merged(_ranges(index, rows))
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        pieces = list(pool.map(lambda piece: store.read_range(key, *piece), wanted))
    starts = np.array([first for first, _ in wanted])

    def taken(first: int, count: int) -> bytes:
        number = int(np.searchsorted(starts, first, side="right")) - 1
        offset = first - int(starts[number])
        return pieces[number][offset : offset + count]

    wrong = []
    for row in rows:
        image, mask = (
            taken(*place[row].tolist()) for place in (index.image_range, index.mask_range)
        )
        digests = hashlib.sha256(image).digest() + hashlib.sha256(mask).digest()
        if hashlib.sha256(digests).hexdigest() != index.row_sha256[row]:
            wrong.append(row)
            continue
        for place, data in ((index.image_range, image), (index.mask_range, mask if masks else b"")):
            file.seek(int(place[row, 0]))
            file.write(data)
    return wrong


def _mapped(file: BinaryIO) -> np.ndarray:
    """The file's bytes, uint8; the map has a duplicate of the descriptor, so the lock lasts as long as the array."""
    return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
