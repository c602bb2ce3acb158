"""A folder that cannot be written to is refused in one sentence, before anything is spent."""

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from jobs import places
from jobs.places import checked_folder
from training.config import InputError


def test_a_folder_is_made_and_stays_empty(tmp_path: Path):
    folder = checked_folder(tmp_path / "new" / "folder")
    assert folder.is_dir()
    assert list(folder.iterdir()) == []


def test_a_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert checked_folder(Path("~/out")) == tmp_path / "out"


@pytest.mark.parametrize("below", [".", "a/b"])
def test_a_file_in_the_way_is_named(below: str, tmp_path: Path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InputError, match=f"cannot be a folder, because {file} is a file"):
        checked_folder(file / below)


def test_a_file_system_that_must_not_be_written_to_is_named():
    with pytest.raises(InputError, match=r"cannot write to --out /proc/.* name another folder"):
        checked_folder(Path("/proc/reports"))


def test_a_full_disk_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(**options: Any):
        # A file below /dev is no folder: /dev/full takes no byte.
        return open("/dev/full", "wb", buffering=0)

    monkeypatch.setattr(places, "TemporaryFile", full)
    with pytest.raises(InputError, match="No space left on device"):
        checked_folder(tmp_path)


def test_free_space_is_told_of_folders_that_do_not_exist_yet(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STEPCHAIN_CACHE", "/nothing/here")
    said = places.describe_refusal(OSError(28, os.strerror(28)))
    assert said is not None
    assert "the cache /nothing/here has" in said
    assert tempfile.gettempdir() in said
