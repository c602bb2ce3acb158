"""A spool keeps messages until a process delivers them."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from orchestrator.tracking.spool import Spool, abandoned_messages


def test_a_spool_survives_its_writer_and_is_taken_over_once(tmp_path: Path):
    alive, dead = Spool(tmp_path), Spool(tmp_path)
    alive.append("mine")
    dead.append("one")
    dead.append("two")
    dead.keep()
    (left,) = [path for path, _ in abandoned_messages(tmp_path)]
    with left.open("ab") as file:
        file.write(b"cut sho")
    assert [messages for _, messages in abandoned_messages(tmp_path)] == [["one", "two"]]
    assert alive.messages() == ["mine"]
    alive.discard()
    assert [path for path, _ in abandoned_messages(tmp_path)] == [left]


def test_without_locks_a_spool_is_taken_over_when_nobody_has_written_to_it_for_an_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    writer = Spool(tmp_path)
    writer.append("one")
    assert not list(abandoned_messages(tmp_path))
    (path,) = tmp_path.iterdir()
    os.utime(path, (0, 0))
    assert [messages for _, messages in abandoned_messages(tmp_path)] == [["one"]]
    assert writer.messages() == ["one"]
    writer.discard()
    assert not list(tmp_path.iterdir())
