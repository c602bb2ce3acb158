"""Shards are fetched when they are needed, ahead of that, or in part, with the same bytes."""

import pickle
import threading
from pathlib import Path

import numpy as np
import pytest

from orchestrator.datasets.catalog import UnknownDataset, publish
from orchestrator.datasets.stored_split import open_stored_split
from orchestrator.store.folder import FolderStore
from tests.support.datasets import build_dataset
from training.data.digits import Digits
from training.data.manifest import Manifest
from training.data.shards import Index, LocalSplit


class Remote(FolderStore):
    """A store that does not lie on this machine, and counts what is taken from it."""

    taken: list[tuple[str, int]]

    def local_path(self, key: str) -> Path | None:
        return None

    def download(self, key: str, path: Path) -> None:
        super().download(key, path)
        self.taken.append((key, path.stat().st_size))

    def read_range(self, key: str, first: int, count: int) -> bytes:
        self.taken.append((key, count))
        return super().read_range(key, first, count)

    def shards(self) -> list[str]:
        """Return the digests of the shards of which anything was taken, in that order."""
        return [Path(key).stem for key, _ in self.taken if "/shards/" in key]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("digits")
    manifest, _ = build_dataset(Digits(seed=3, train=40, val=6), folder, shard_bytes=60_000)
    assert len(manifest.splits["train"].shards) > 3
    return folder, manifest


@pytest.fixture
def store(tmp_path: Path, built: tuple[Path, Manifest]) -> Remote:
    store = Remote(tmp_path / "store")
    object.__setattr__(store, "taken", [])
    publish(store, "digits", *built)
    store.taken.clear()
    return store


def read_range(split: LocalSplit, row: int, ranges: np.ndarray) -> bytes:
    first, count = ranges[row]
    return split.open_shard(row)[first : first + count].tobytes()


def originals(built: tuple[Path, Manifest], index: Index, row: int) -> tuple[bytes, bytes]:
    """Return image and mask of a row as they were built."""
    folder, manifest = built
    data = (
        folder / f"{manifest.splits['train'].shards[index.shard[row]].sha256}.arrow"
    ).read_bytes()
    image, mask = (
        data[ranges[row, 0] : ranges[row].sum()] for ranges in (index.image_range, index.mask_range)
    )
    return image, mask


def test_a_shard_comes_when_a_row_of_it_is_wanted(
    store: Remote, built: tuple[Path, Manifest], tmp_path: Path
):
    split = open_stored_split(store, built[1], "train", tmp_path / "cache")
    assert store.shards() == []
    for row in (20, 21, 20):
        assert (
            read_range(split, row, split.index.image_range) == originals(built, split.index, row)[0]
        )
    wanted = [
        built[1].splits["train"].shards[number].sha256
        for number in dict.fromkeys(split.index.shard[[20, 21]])
    ]
    assert store.shards() == wanted


def test_shards_are_fetched_ahead_in_the_order_in_which_they_are_needed(
    store: Remote, built: tuple[Path, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("orchestrator.datasets.stored_split.THREADS", 1)
    split = open_stored_split(store, built[1], "train", tmp_path / "cache")
    rows = np.random.default_rng(0).permutation(40)
    with split.prefetching(rows):
        for thread in threading.enumerate():
            if thread.name == "prefetch":
                thread.join()
    shards = built[1].splits["train"].shards
    assert store.shards() == [
        shards[number].sha256 for number in dict.fromkeys(split.index.shard[rows].tolist())
    ]
    assert len(store.shards()) == len(shards)


@pytest.mark.parametrize("masks", [True, False])
def test_a_few_rows_are_read_by_range_and_verified(
    store: Remote,
    built: tuple[Path, Manifest],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    masks: bool,
):
    monkeypatch.setattr("orchestrator.datasets.row_ranges.REQUEST_BYTES", 100)
    rows = np.array([31, 2])
    split = open_stored_split(store, built[1], "train", tmp_path / "cache", rows=rows, masks=masks)
    store.taken.clear()
    for row in rows:
        image, mask = originals(built, split.index, row)
        assert read_range(split, row, split.index.image_range) == image
        assert read_range(split, row, split.index.mask_range) == (
            mask if masks else bytes(len(mask))
        )
    needed = sum(len(data) for row in rows for data in originals(built, split.index, row))
    assert needed <= sum(count for _, count in store.taken) < needed + 2 * 3 * 100
    store.taken.clear()
    for row in rows:
        read_range(split, row, split.index.image_range)
    assert store.taken == []


def test_what_costs_as_much_as_the_shard_is_read_whole(
    store: Remote, built: tuple[Path, Manifest], tmp_path: Path
):
    split = open_stored_split(store, built[1], "train", tmp_path / "cache", rows=np.arange(20))
    read_range(split, 3, split.index.image_range)
    assert store.taken[-1][1] == built[1].splits["train"].shards[0].bytes


def test_a_shard_that_is_here_serves_steps_that_need_few_rows(
    store: Remote, built: tuple[Path, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("orchestrator.datasets.row_ranges.REQUEST_BYTES", 100)
    read_range(
        open_stored_split(store, built[1], "train", tmp_path / "cache"), 2, np.zeros((40, 2), int)
    )
    store.taken.clear()
    few = open_stored_split(store, built[1], "train", tmp_path / "cache", rows=np.array([2]))
    assert read_range(few, 2, few.index.image_range) == originals(built, few.index, 2)[0]
    assert store.taken == []


def test_a_split_travels_to_other_processes(built: tuple[Path, Manifest], tmp_path: Path):
    store = FolderStore(tmp_path / "store")
    publish(store, "digits", *built)
    split = pickle.loads(
        pickle.dumps(open_stored_split(store, built[1], "train", tmp_path / "cache"))
    )
    assert read_range(split, 7, split.index.image_range) == originals(built, split.index, 7)[0]


def test_an_unknown_split_is_answered_with_the_known(
    store: Remote, built: tuple[Path, Manifest], tmp_path: Path
):
    with pytest.raises(UnknownDataset, match="no split 'test'; it has train, val"):
        open_stored_split(store, built[1], "test", tmp_path)
