"""What no dataset names goes after a while, and so does what was left half written."""

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.records import layout
from orchestrator.records.prune_data import delete_left_files, left_files
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from tests.support.datasets import publish_digits

DAY = 24 * 3600
ABSENT = "0" * 64


@pytest.fixture
def digits(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path / "store"))
    publish_digits(store, tmp_path / "built", seed=1, train=12, val=4)
    return store


def age(path: Path | None, days: float) -> None:
    assert path is not None
    then = time.time() - days * DAY
    os.utime(path, (then, then))


def test_only_files_that_no_dataset_names_go_and_only_after_a_while(digits: Store) -> None:
    for key in list(digits.list("datasets/")):
        age(digits.local_path(key), days=3)
    before = set(digits.list())
    for key, days in ((layout.shard(ABSENT), 2), (layout.index(ABSENT), 2), (layout.shard("1"), 0)):
        digits.write(key, b"1234")
        age(digits.local_path(key), days)
    found = left_files(digits)
    assert [each.name for each in found] == [layout.shard(ABSENT), layout.index(ABSENT)]
    assert {(each.bytes, each.reason) for each in found} == {(4, "no dataset names it")}
    assert delete_left_files(digits) == found
    assert set(digits.list()) == before | {layout.shard("1")}
    assert left_files(digits) == ()
    assert [each.name for each in left_files(digits, timedelta(0))] == [layout.shard("1")]


def test_what_a_damaged_manifest_may_name_stays(digits: Store) -> None:
    digits.write(layout.manifest(ABSENT), b"{")
    digits.write(layout.shard(ABSENT), b"1234")
    assert left_files(digits, timedelta(0)) == ()


def test_a_file_that_a_killed_process_left_half_written_goes(digits: Store, tmp_path: Path) -> None:
    half, young = (tmp_path / "store" / ".tmp" / name for name in ("half", "young"))
    for path, days in ((half, 2), (young, 0)):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"ha")
        age(path, days)
    (found,) = delete_left_files(digits)
    assert (found.name, found.bytes) == (".tmp/half", 2)
    assert not half.exists()
    assert young.exists()
