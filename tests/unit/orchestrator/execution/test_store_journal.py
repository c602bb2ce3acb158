"""A step's journal writes curves and checkpoints, and stops the step when its lease is lost."""

import json
from pathlib import Path

import pytest

from orchestrator.execution.store_journal import StoreJournal
from orchestrator.records import layout
from orchestrator.records.attempts import newest_checkpoint
from orchestrator.store.base import Store, StoreError
from orchestrator.store.lease import Lease, LeaseLost
from orchestrator.store.open import open_store
from orchestrator.store.retries import Retries
from training.curves import CurveRow

ALWAYS = Retries(lease_check_seconds=-1, flush_seconds_folder=-1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def lease(store: Store) -> Lease:
    lease = Lease(store, layout.step_lease("abc"), "ada@lab")
    assert lease.acquire()
    return lease


def journal(store: Store, lease: Lease, retries: Retries = ALWAYS) -> StoreJournal:
    return StoreJournal(store, "abc", "one", lease, retries, leads=True)


def row(iteration: int) -> CurveRow:
    return {"iteration": iteration, "loss": 1.0 / iteration}


def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "state.json").write_text("{}")
    return folder


def test_the_stage_and_the_newest_row_are_shown_and_time_is_measured(store: Store, lease: Lease):
    writing = journal(store, lease)
    with writing.stage("train"):
        writing.log(row(1))
        writing.log(row(2))
        shown = json.loads(store.read(layout.progress("abc", "one")))
    assert shown == {"stage": "train", **row(2)}
    assert json.loads(store.read(layout.curves_piece("abc", "one", 1))) == [row(1), row(2)]
    assert set(writing.seconds) == {"train"}


def test_only_rank_0_writes(store: Store, lease: Lease):
    other = StoreJournal(store, "abc", "one", lease, ALWAYS, leads=False)
    with other.stage("fetch"):
        assert not store.exists(layout.progress("abc", "one"))
    assert set(other.seconds) == {"fetch"}


def test_a_lost_lease_stops_the_step_with_a_checkpoint(store: Store, lease: Lease, tmp_path: Path):
    writing = journal(store, lease)
    assert not writing.should_stop()
    store.delete(lease.key)
    writing.log(row(1))
    assert writing.should_stop()
    folder = checkpoint(tmp_path)
    with pytest.raises(LeaseLost):
        writing.save(folder, 1)
    assert not folder.exists()
    kept = newest_checkpoint(store, "abc")
    assert kept is not None
    assert kept.iteration == 1


def test_the_lease_is_looked_at_now_and_then(store: Store, lease: Lease):
    writing = journal(store, lease, Retries())
    assert not writing.should_stop()
    store.delete(lease.key)
    assert not writing.should_stop()


def test_training_survives_a_store_that_does_not_answer(
    store: Store, lease: Lease, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    writing = journal(store, lease)

    def fail(*_: object, **__: object) -> None:
        raise StoreError("the server does not answer")

    with monkeypatch.context() as outage:
        outage.setattr(type(store), "write", fail)
        outage.setattr(type(store), "read", fail)
        outage.setattr(type(store), "upload", fail)
        writing.log(row(1))
        assert not writing.should_stop()
        writing.save(checkpoint(tmp_path), 1)
    writing.log(row(2))
    assert json.loads(store.read(layout.curves_piece("abc", "one", 1))) == [row(1), row(2)]
