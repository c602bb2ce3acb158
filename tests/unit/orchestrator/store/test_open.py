"""A URI names one store, or is refused in one sentence."""

from pathlib import Path

import pytest

from orchestrator.store.base import StoreError
from orchestrator.store.folder import FolderStore
from orchestrator.store.open import open_store


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///data/run#1", "/data/run#1"),
        ("file:///data/run?x", "/data/run?x"),
        ("file:///data/a%20store%231", "/data/a store#1"),
        ("file://localhost/data/run", "/data/run"),
        ("file:/data/run", "/data/run"),
        ("FILE:///data/run", "/data/run"),
        ("/data/run#1", "/data/run#1"),
        ("/data/a:b", "/data/a:b"),
    ],
)
def test_a_folder_keeps_every_character_of_its_path(uri: str, path: str) -> None:
    assert open_store(uri) == FolderStore(Path(path))


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("file://stepchain-store", "file:/// and a folder's whole path"),
        ("file://data/store", "file:/// and a folder's whole path"),
        ("file:store", "file:/// and a folder's whole path"),
        ("file:", "file:/// and a folder's whole path"),
        ("s3://[b/x", "is not a store .*: give s3://bucket/prefix"),
        ("~nobody-of-this-name/store", "does not know: give the folder's whole path"),
    ],
)
def test_what_names_no_store_is_one_sentence(uri: str, sentence: str) -> None:
    with pytest.raises(StoreError, match=sentence):
        open_store(uri)


@pytest.mark.parametrize("name", ["s3", "file"])
def test_a_folder_may_have_the_name_of_a_scheme(name: str) -> None:
    assert open_store(name) == FolderStore(Path(name).resolve())


@pytest.mark.parametrize("uri", ["s3://key:secret@[b/x", "http://key:secret@host/x"])
def test_a_password_in_what_is_no_store_is_not_shown(uri: str) -> None:
    with pytest.raises(StoreError) as caught:
        open_store(uri)
    assert "secret" not in str(caught.value)
