"""A spool keeps messages until a process delivers them."""

from pathlib import Path

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
