"""A store carries its retries to every process, and is the same store with others."""

import pickle
from pathlib import Path

import pytest

from orchestrator.store.base import Store
from orchestrator.store.folder import FolderStore
from orchestrator.store.retries import DEFAULT_RETRIES, Retries
from orchestrator.store.s3 import S3Store

FEW = Retries(s3_attempts=1, damaged_fetches=1)


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_stores_retries_travel_with_it_and_do_not_tell_it_from_another(
    kind: str, tmp_path: Path
) -> None:
    few: Store = FolderStore(tmp_path, FEW) if kind == "folder" else S3Store("bucket", "", FEW)
    usual: Store = FolderStore(tmp_path) if kind == "folder" else S3Store("bucket", "")
    assert few == usual
    assert pickle.loads(pickle.dumps(few)).retries == FEW
    assert usual.retries == DEFAULT_RETRIES


def test_a_server_is_asked_less_often_than_a_folder() -> None:
    retries = Retries()
    assert retries.look_seconds(local=False) > retries.look_seconds(local=True)
    assert retries.flush_seconds(local=False) > retries.flush_seconds(local=True)
