import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from orchestrator.datasets import ingest as ingest_module
from orchestrator.datasets.catalog import damaged, known, resolve, stored_files
from orchestrator.datasets.ingest import ingest, store_on_node
from orchestrator.datasets.store_shard import StoredShard
from orchestrator.records import layout
from orchestrator.store.base import Store, StoreError
from orchestrator.store.open import open_store
from tests.support.datasets import build_dataset
from training.data.dataset_writer import plan_shards
from training.data.shard_writer import ShardJob
from training.data.source import BadData, Sample
from training.data.validation import BadRows
from training.data.voc import Voc

SMALL = 30_000  # bytes of a shard


class Counting(Voc):
    """Counts what is read, and breaks when enough was."""

    def __init__(self, root: Path, breaks_after: int = 1000) -> None:
        super().__init__(root)
        self.read_ids: list[str] = []
        self.breaks_after = breaks_after

    def read(self, split: str, id: str) -> Sample:
        self.read_ids.append(id)
        if len(self.read_ids) > self.breaks_after:
            raise OSError("the disk does not answer")
        return super().read(split, id)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def test_the_manifest_is_the_one_that_is_built_in_one_go(
    store: Store, voc_folder: Path, tmp_path: Path
):
    done = ingest(Voc(voc_folder), store, "voc", shard_bytes=SMALL)
    assert done.manifest == build_dataset(Voc(voc_folder), tmp_path / "built", shard_bytes=SMALL)[0]
    assert resolve(store, "voc") == (done.publication.manifest, done.manifest)
    assert (
        done.publication.uploaded == done.publication.files == len(stored_files(done.manifest)) > 5
    )
    assert done.publication.bytes == sum(
        file.bytes for file in stored_files(done.manifest).values()
    )
    assert damaged(store, stored_files(done.manifest)) == []


def test_a_second_time_opens_no_image_and_uploads_nothing(store: Store, voc_folder: Path):
    first = ingest(Counting(voc_folder), store, "voc", shard_bytes=SMALL)
    source = Counting(voc_folder)
    seen = []
    second = ingest(
        source,
        store,
        "voc",
        shard_bytes=SMALL,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert source.read_ids == []
    assert second.manifest == first.manifest
    assert (second.publication.uploaded, second.publication.bytes, second.publication.renewed) == (
        0,
        0,
        False,
    )
    assert seen == [(32, 32)]


@pytest.mark.parametrize(
    "damage", [lambda data: data.replace(b":1", b":2", 1), lambda data: data[:90]]
)
def test_a_damaged_note_is_no_note(
    store: Store, voc_folder: Path, damage: Callable[[bytes], bytes]
):
    first = ingest(Counting(voc_folder), store, "voc", shard_bytes=SMALL)
    note = next(iter(store.list(layout.SHARD_NOTES)))
    data = store.read(note)
    store.write(note, damage(data))
    assert store.read(note) != data
    source = Counting(voc_folder)
    assert ingest(source, store, "voc", shard_bytes=SMALL).manifest == first.manifest
    assert 0 < len(source.read_ids) < 32
    assert store.read(note) == data


def test_an_interrupted_ingest_goes_on_where_it_was(store: Store, voc_folder: Path, tmp_path: Path):
    with pytest.raises(OSError, match="does not answer"):
        ingest(Counting(voc_folder, breaks_after=20), store, "voc", shard_bytes=SMALL)
    assert known(store) == []
    noted = len(list(store.list(layout.SHARD_NOTES)))
    assert noted >= 2
    source = Counting(voc_folder)
    done = ingest(source, store, "voc", shard_bytes=SMALL)
    assert done.publication.uploaded == done.publication.files - noted
    assert 0 < len(source.read_ids) < 32 - 2 * noted
    assert done.manifest == build_dataset(Voc(voc_folder), tmp_path / "built", shard_bytes=SMALL)[0]


def test_a_file_that_changed_is_looked_at_again_with_its_part_alone(store: Store, voc_folder: Path):
    ingest(Counting(voc_folder), store, "voc", shard_bytes=SMALL)
    source = Counting(voc_folder)
    image = source.files("val", source.ids("val")[0])[0]
    image.write_bytes(image.read_bytes() + b"\0")
    done = ingest(source, store, "voc", shard_bytes=SMALL)
    assert set(source.read_ids) <= set(source.ids("val"))
    assert done.publication.uploaded == 2  # its shard, and the split's index
    assert done.publication.renewed


def test_a_part_whose_shard_is_gone_is_stored_again(store: Store, voc_folder: Path):
    done = ingest(Voc(voc_folder), store, "voc", shard_bytes=SMALL)
    gone, *_ = stored_files(done.manifest)
    store.delete(gone)
    assert damaged(store, stored_files(done.manifest)) == [gone]
    again = ingest(Voc(voc_folder), store, "voc", shard_bytes=SMALL)
    assert again.publication.uploaded == 1
    assert damaged(store, stored_files(done.manifest)) == []


@pytest.mark.parametrize("order", range(3))
def test_parts_may_be_done_in_any_order(
    store: Store, voc_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: int
):
    def shuffled(
        function: Callable[[ShardJob], StoredShard], jobs: Sequence[ShardJob]
    ) -> Iterator[tuple[ShardJob, StoredShard]]:
        for job in random.Random(order).sample(list(jobs), len(jobs)):
            yield job, function(job)

    monkeypatch.setattr(ingest_module, "NODE_THREADS", order + 1)
    monkeypatch.setattr(ingest_module, "run_tasks", shuffled)
    done = ingest(Voc(voc_folder), store, "voc", shard_bytes=SMALL, where="cluster")
    assert done.manifest == build_dataset(Voc(voc_folder), tmp_path / "built", shard_bytes=SMALL)[0]


def test_a_cluster_is_asked_for_many_new_images_only(
    store: Store, voc_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def asked(*_: object) -> Iterator:
        raise StoreError("a cluster was asked for")

    monkeypatch.setattr(ingest_module, "run_tasks", asked)
    monkeypatch.setattr(ingest_module, "LARGE", 32)
    with pytest.raises(StoreError, match="was asked for"):
        ingest(Voc(voc_folder), store, "voc")
    ingest(Voc(voc_folder), store, "voc", where="here")
    ingest(Voc(voc_folder), store, "again")  # nothing of it is new
    assert known(store) == ["again", "voc"]


def test_unusable_images_name_nothing_and_their_parts_are_looked_at_again(
    store: Store, voc_folder: Path
):
    source = Counting(voc_folder)
    id = source.ids("train")[5]
    mask = source.files("train", id)[1]
    mask.write_bytes(b"")
    with pytest.raises(BadRows, match=f"train/{id}"):
        ingest(source, store, "voc", shard_bytes=SMALL)
    assert known(store) == []
    skipped = ingest(Voc(voc_folder), store, "voc", on_bad="skip", shard_bytes=SMALL)
    assert [row.id for row in skipped.bad] == [id]
    source.read_ids.clear()
    again = ingest(source, store, "voc", on_bad="skip", shard_bytes=SMALL)
    assert again.bad == skipped.bad
    assert id in source.read_ids
    assert again.publication.uploaded == 0


def test_a_machine_that_sees_other_files_stores_nothing(store: Store, voc_folder: Path):
    source = Voc(voc_folder)
    (part,) = plan_shards(source)["val"].jobs
    (voc_folder / "JPEGImages").rename(voc_folder / "elsewhere")
    with pytest.raises(
        BadData, match=r"sees other files than this one.*under one path.*--where here"
    ):
        store_on_node(store, source, part)
    assert list(store.list()) == []
