import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.datasets.catalog import (
    UnknownDataset,
    known,
    publish,
    resolve,
)
from orchestrator.datasets.stored_split import DataError, open_stored_split
from orchestrator.records import layout
from orchestrator.store.base import Store, StoreError
from orchestrator.store.cache import CorruptedObject
from orchestrator.store.canonical import digest
from orchestrator.store.folder import FolderStore
from orchestrator.store.open import open_store
from tests.support.datasets import build_dataset
from training.data.manifest import Manifest
from training.data.source import Sample


class Squares:
    """Tiny images, each of one class; several shards when asked for."""

    classes = ("a", "b", "c")
    splits = ("train", "val")

    def __init__(self, shade: int = 0) -> None:
        self.shade = shade

    def ids(self, split: str) -> list[str]:
        return [f"{split}{number}" for number in range(6 if split == "train" else 2)]

    def read(self, split: str, id: str) -> Sample:
        value = int(id.removeprefix(split)) % 3 + 1
        image, mask = (
            np.full((8, 8, 3), 40 * value + self.shade, np.uint8),
            np.full((8, 8), value, np.uint8),
        )
        return Sample(id, self._png(image), self._png(mask))

    def _png(self, array: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(array).save(file, "PNG")
        return file.getvalue()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def built(tmp_path: Path) -> tuple[Path, Manifest]:
    manifest, _ = build_dataset(Squares(), tmp_path / "built", shard_bytes=400)
    assert len(manifest.splits["train"].shards) > 1
    return tmp_path / "built", manifest


def test_a_published_dataset_is_found_by_name_and_digest(
    store: Store, built: tuple[Path, Manifest]
):
    folder, manifest = built
    done = publish(store, "squares", folder, manifest)
    assert done.manifest == digest(manifest)
    assert resolve(store, "squares") == resolve(store, done.manifest) == (done.manifest, manifest)
    assert resolve(store, done.manifest[:16])[0] == done.manifest  # as `ls` prints it
    with pytest.raises(UnknownDataset):
        resolve(store, done.manifest[:7])
    store.write(layout.manifest(done.manifest[:16] + 48 * "0"), b"{}")
    with pytest.raises(UnknownDataset, match="the digests of 2 datasets begin with"):
        resolve(store, done.manifest[:16])
    assert known(store) == ["squares"]


def test_a_copy_of_a_name_is_no_name(store: Store, built: tuple[Path, Manifest]):
    done = publish(store, "squares", *built)
    for name in ("squares 2", "sub/squares", "f" * 64):
        store.write(layout.dataset_name(name), done.manifest.encode())
    assert known(store) == ["squares"]


def test_publishing_again_uploads_nothing(store: Store, built: tuple[Path, Manifest]):
    first = publish(store, "squares", *built)
    assert (first.uploaded, first.renewed) == (first.files, True)
    assert publish(store, "squares", *built) == first._replace(uploaded=0, bytes=0, renewed=False)
    assert publish(store, "copy", *built) == first._replace(uploaded=0, bytes=0, renewed=True)


def test_a_name_moves_to_what_was_published_last(
    store: Store, built: tuple[Path, Manifest], tmp_path: Path
):
    first = publish(store, "squares", *built)
    other, _ = build_dataset(Squares(shade=9), tmp_path / "other")
    second = publish(store, "squares", tmp_path / "other", other)
    assert second.renewed
    assert resolve(store, "squares")[0] == second.manifest
    assert resolve(store, first.manifest)[1] == built[1]


class Recording(FolderStore):
    """A store that notes what is written, and breaks when enough was."""

    written: list[str]
    breaks_after: list[int]

    def upload(self, path: Path, key: str) -> None:
        self._note(key)
        super().upload(path, key)

    def write(self, key: str, data: bytes, only_if_absent: bool = False) -> bool:
        self._note(key)
        return super().write(key, data, only_if_absent)

    def _note(self, key: str) -> None:
        if self.breaks_after and len(self.written) == self.breaks_after[0]:
            raise StoreError("the server does not answer")
        self.written.append(key)


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    store = Recording(tmp_path / "store")
    object.__setattr__(store, "written", [])
    object.__setattr__(store, "breaks_after", [])
    return store


def test_what_is_named_is_written_before_what_names_it(
    recording: Recording, built: tuple[Path, Manifest]
):
    done = publish(recording, "squares", *built)
    kinds = [key.split("/")[1] for key in recording.written]
    order = ["shards", "indexes", "manifests", "refs"]
    assert kinds == sorted(kinds, key=order.index)
    assert set(kinds) == set(order)
    assert recording.written[-2:] == [layout.manifest(done.manifest), "datasets/refs/squares"]


def test_an_interrupted_publication_leaves_no_name_and_goes_on(
    recording: Recording, built: tuple[Path, Manifest]
):
    count = publish(open_store(f"{recording.uri}-whole"), "squares", *built).files
    for number in range(count + 2):  # files, manifest, name
        recording.breaks_after[:] = [number]
        with pytest.raises(StoreError):
            publish(recording, "squares", *built)
        assert known(recording) == []
        recording.breaks_after.clear()
    recording.written.clear()
    assert publish(recording, "squares", *built).uploaded == 0
    assert resolve(recording, "squares")[1] == built[1]


def test_an_unknown_name_is_answered_with_the_nearest_and_all(
    store: Store, built: tuple[Path, Manifest]
):
    with pytest.raises(
        UnknownDataset, match=r"no dataset 'squares' .*: it has none yet; .*jobs\.ingest"
    ):
        resolve(store, "squares")
    publish(store, "squares", *built)
    publish(store, "voc", *built)
    with pytest.raises(
        UnknownDataset, match=r"no dataset 'square' .*did you mean 'squares'\? It has squares, voc"
    ):
        resolve(store, "square")
    with pytest.raises(UnknownDataset, match="no dataset '0000"):
        resolve(store, "0" * 64)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a b", "f" * 64])
def test_a_name_must_be_a_name(store: Store, built: tuple[Path, Manifest], name: str):
    with pytest.raises(ValueError, match="cannot name a dataset"):
        publish(store, name, *built)
    assert list(store.list()) == []


def test_a_changed_manifest_is_refused(store: Store, built: tuple[Path, Manifest]):
    done = publish(store, "squares", *built)
    store.write(layout.manifest(done.manifest), b"{}")
    with pytest.raises(CorruptedObject, match="ingest it again"):
        resolve(store, "squares")
    publish(store, "squares", *built)
    assert resolve(store, "squares")[1] == built[1]


def test_a_missing_manifest_is_named_and_published_again(
    store: Store, built: tuple[Path, Manifest]
):
    done = publish(store, "squares", *built)
    key = layout.manifest(done.manifest)
    store.delete(key)
    with pytest.raises(CorruptedObject, match=f"'{key}' of dataset 'squares' .* missing: ingest"):
        resolve(store, "squares")
    with pytest.raises(UnknownDataset):
        resolve(store, done.manifest)
    publish(store, "squares", *built)
    store.write(f"{layout.MANIFESTS}{done.manifest} copy.json", store.read(key))
    assert resolve(store, done.manifest[:16])[1] == built[1]


def test_a_localised_split_lies_in_the_cache_verified(
    store: Store, built: tuple[Path, Manifest], tmp_path: Path
):
    _, manifest = built
    publish(store, "squares", *built)
    split = open_stored_split(store, manifest, "train", tmp_path / "cache")
    assert split.index.ids == [f"train{number}" for number in range(6)]
    assert split.index.labels.argmax(1).tolist() == [0, 1, 2, 0, 1, 2]
    assert split.classes == manifest.classes
    assert split.content == manifest.splits["train"].content
    assert [path.stem for path in split.shards] == [
        shard.sha256 for shard in manifest.splits["train"].shards
    ]
    assert all(path.is_relative_to(tmp_path / "cache") for path in split.shards)


@pytest.mark.parametrize("kind", ["index", "shard"])
def test_a_flipped_byte_in_the_store_is_an_error(
    store: Store, built: tuple[Path, Manifest], tmp_path: Path, kind: str
):
    _, manifest = built
    publish(store, "squares", *built)
    files = manifest.splits["train"]
    key = (
        layout.index(files.index.sha256)
        if kind == "index"
        else layout.shard(files.shards[1].sha256)
    )
    data = bytearray(store.read(key))
    data[len(data) // 2] ^= 1
    store.write(key, bytes(data))
    error = CorruptedObject if kind == "index" else DataError
    with pytest.raises(error, match=f"{key}.* ingest the dataset again with --verify"):
        open_stored_split(store, manifest, "train", tmp_path / "cache").open_shard(5)
