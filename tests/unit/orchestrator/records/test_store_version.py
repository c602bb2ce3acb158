"""A store says its version; one that this code does not handle is refused in one sentence."""

import json

import pytest

from orchestrator.records.store_version import (
    NEWEST,
    check_version,
    open_checked_store,
    prepare_store,
)
from orchestrator.store.base import Store, StoreError


def test_a_store_without_a_version_is_read_and_written_as_before(store: Store) -> None:
    check_version(store)
    store.write("chains/old.json", b"{}")
    prepare_store(store)
    check_version(open_checked_store(store.uri))


def test_a_store_that_is_written_to_says_its_version(store: Store) -> None:
    prepare_store(store)
    assert list(store.list()) == ["store.json"]
    mark = json.loads(store.read("store.json"))
    assert mark["version"] == NEWEST
    assert mark["written_by"]


def test_the_version_of_a_store_is_written_once(store: Store) -> None:
    store.write("store.json", b'{"version":1,"written_by":"0.2.0"}')
    prepare_store(store)
    assert store.read("store.json") == b'{"version":1,"written_by":"0.2.0"}'


@pytest.mark.parametrize(
    ("version", "advice"),
    [
        (0, "use that version, or another store"),
        (2, "install that version or a newer one, or another store"),
    ],
)
def test_a_store_of_another_version_is_refused_in_one_sentence(
    store: Store, version: int, advice: str
) -> None:
    store.write("store.json", json.dumps({"version": version, "written_by": "9.0.0"}).encode())
    with pytest.raises(StoreError) as refused:
        open_checked_store(store.uri)
    assert str(refused.value) == (
        f"the store {store.uri} has version {version} of the layout, written by Stepchain 9.0.0, "
        f"but this Stepchain handles versions 1 to 1: {advice}"
    )


def test_a_damaged_version_is_said_to_be_damaged(store: Store) -> None:
    store.write("store.json", b"{")
    with pytest.raises(StoreError, match=r"'store\.json' in the store .* is damaged: restore it"):
        check_version(store)
