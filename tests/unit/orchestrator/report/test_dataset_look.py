"""A dataset is measured by its index, and by a sample that shows every class."""

from pathlib import Path

import numpy as np
import pytest

from orchestrator.datasets.catalog import resolve
from orchestrator.report.dataset_look import LookedAt, look_at, object_sides, sample_rows
from orchestrator.store.base import Store
from tests.support.datasets import make_index
from tests.support.scenes import Boxes, publish_boxes


@pytest.fixture
def looked(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[LookedAt]:
    monkeypatch.setenv("STEPCHAIN_CACHE", str(tmp_path / "cache"))

    def voided(mask: np.ndarray) -> np.ndarray:
        mask[:12] = 255
        return mask

    publish_boxes(store, tmp_path / "built", Boxes(fault=voided))
    done: list[int] = []
    found = look_at(store, "boxes", resolve(store, "boxes")[1], 10, done.append)
    assert done == sorted(done)
    assert done[-1] == sum(len(each.sample.rows) for each in found)
    return found


def test_every_class_is_in_a_sample_and_a_small_dataset_is_looked_at_entirely():
    labels = np.zeros((500, 3), bool)
    labels[:300, 0] = True
    labels[7, 1] = True
    labels[400:420, 2] = True
    index = make_index(labels)
    rows = sample_rows(index, 50)
    assert 50 <= len(rows) < 100
    assert 7 in rows
    assert labels[rows, 2].sum() == 20
    np.testing.assert_array_equal(rows, sample_rows(index, 50))
    assert len(sample_rows(index, 500)) == 500


def test_splits_are_measured(looked: list[LookedAt]):
    train, val = looked
    assert (train.name, val.name) == ("train", "val")
    assert train.void_share == pytest.approx(12 / 48)
    assert len(val.sample.rows) == 12
    assert train.sample.fingerprints.shape == (len(train.sample.rows), 256)
    np.testing.assert_array_equal(np.unique(train.index.sizes, axis=0), [[64, 48]])
    # A box has a side of 16, less where void covers it.
    assert set(train.sample.sides) == {1, 2}
    assert max(map(max, train.sample.sides.values())) == pytest.approx(16)


def test_the_split_that_steps_train_on_comes_first(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("STEPCHAIN_CACHE", str(tmp_path / "cache"))
    publish_boxes(store, tmp_path / "built", Boxes(counts={"test": 3, "train": 4, "val": 3}))
    found = look_at(store, "boxes", resolve(store, "boxes")[1], 10)
    assert [each.name for each in found] == ["train", "test", "val"]


def test_objects_are_connected_pieces_and_specks_are_none():
    labels = np.zeros((20, 20), np.uint8)
    labels[1:5, 1:5] = 2
    labels[10:12, 10:18] = 2
    labels[19, 0] = 2
    labels[0, 19] = 1
    assert sorted(object_sides(labels, 2)) == [4, 4]
    assert object_sides(labels, 1) == []
