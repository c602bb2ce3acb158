"""A step's journal writes curves and checkpoints, and stops the step when its lease is lost."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.execution import store_journal
from orchestrator.execution.store_journal import StoreJournal
from orchestrator.records import layout
from orchestrator.records.attempts import newest_checkpoint
from orchestrator.store.base import Store, StoreError
from orchestrator.store.lease import Lease, LeaseLost
from orchestrator.store.open import open_store
from orchestrator.store.retries import Retries
from training.checkpoint import Snapshot
from training.curves import CurveRow

OFTEN = Retries(lease_check_seconds=0.01, flush_seconds_folder=0.01)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def lease(store: Store) -> Lease:
    lease = Lease(store, layout.step_lease("abc"), "ada@lab")
    assert lease.acquire()
    return lease


def journal(store: Store, lease: Lease, retries: Retries = OFTEN) -> StoreJournal:
    return StoreJournal(store, "abc", "one", lease, retries, leads=True)


def row(iteration: int) -> CurveRow:
    return {"iteration": iteration, "loss": 1.0 / iteration}


def snapshot(iteration: int) -> Snapshot:
    return Snapshot(iteration, [row(iteration)], {"weight": torch.ones(2)}, {}, None, {})


def eventually(condition: Callable[[], object]) -> bool:
    """Return whether the condition holds within ten seconds."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.005)
    return False


def written(store: Store) -> object:
    """Return the rows of the first piece of the curves in the store, or None."""
    name = layout.curves_piece("abc", "one", 1)
    return json.loads(store.read(name)) if store.exists(name) else None


def fail(*_: object, **__: object) -> None:
    raise StoreError("the server does not answer")


@pytest.fixture
def slow_upload(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let each upload of a checkpoint wait until the event is set."""
    going_on = threading.Event()
    saved = store_journal.save_checkpoint

    def save(*arguments: Any) -> None:
        assert going_on.wait(10)
        saved(*arguments)

    monkeypatch.setattr(store_journal, "save_checkpoint", save)
    return going_on


def test_the_stage_and_the_newest_row_are_shown_and_time_is_measured(store: Store, lease: Lease):
    with journal(store, lease) as writing, writing.stage("train"):
        writing.log(row(1))
        writing.log(row(2))
        assert eventually(lambda: written(store) == [row(1), row(2)])
        progress = layout.progress("abc", "one")
        assert eventually(lambda: json.loads(store.read(progress)) == {"stage": "train", **row(2)})
    assert set(writing.seconds) == {"train"}


def test_a_stage_writes_the_rows_of_the_stage_before(store: Store, lease: Lease):
    with journal(store, lease, Retries()) as writing:
        with writing.stage("train"):
            writing.log(row(1))
        with writing.stage("publish"):
            assert written(store) == [row(1)]


def test_only_rank_0_writes(store: Store, lease: Lease):
    other = StoreJournal(store, "abc", "one", lease, OFTEN, leads=False)
    before = threading.active_count()
    with other, other.stage("fetch"):
        assert threading.active_count() == before
        assert not store.exists(layout.progress("abc", "one"))
    assert set(other.seconds) == {"fetch"}
    with pytest.raises(LeaseLost):
        other.stop()


def test_a_lost_lease_stops_the_step_with_a_checkpoint(store: Store, lease: Lease, tmp_path: Path):
    folder = tmp_path / "checkpoint"
    with journal(store, lease) as writing:
        assert not writing.should_stop()
        store.delete(lease.key)
        assert eventually(writing.should_stop)
        writing.save(snapshot(1), folder)
        assert not folder.exists()
        kept = newest_checkpoint(store, "abc")
        assert kept is not None
        assert kept.iteration == 1
        with pytest.raises(LeaseLost):
            writing.stop()


def test_the_lease_is_looked_at_now_and_then(store: Store, lease: Lease):
    with journal(store, lease, Retries()) as writing:
        assert eventually(lambda: writing._checked)
        store.delete(lease.key)
        time.sleep(0.1)
        assert not writing.should_stop()


def test_training_goes_on_while_a_checkpoint_is_stored(
    store: Store, lease: Lease, tmp_path: Path, slow_upload: threading.Event
):
    with journal(store, lease) as writing:
        writing.save(snapshot(1), tmp_path / "1")
        writing.log(row(2))
        assert newest_checkpoint(store, "abc") is None
        slow_upload.set()
    kept = newest_checkpoint(store, "abc")
    assert kept is not None, "the journal ends when everything is written"
    assert set(kept.files) == {"method.safetensors", "momentum.safetensors", "state.json"}


def test_one_checkpoint_waits_for_the_one_before(
    store: Store, lease: Lease, tmp_path: Path, slow_upload: threading.Event
):
    with journal(store, lease) as writing:
        writing.save(snapshot(1), tmp_path / "1")
        threading.Timer(0.2, slow_upload.set).start()
        writing.save(snapshot(2), tmp_path / "2")
        kept = newest_checkpoint(store, "abc")
        assert kept is not None
        assert kept.iteration >= 1
    kept = newest_checkpoint(store, "abc")
    assert kept is not None
    assert kept.iteration == 2


def test_an_error_of_the_thread_ends_the_training(
    store: Store, lease: Lease, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(store_journal, "save_checkpoint", refuse)
    before = threading.active_count()

    def save(*iterations: int) -> None:
        with journal(store, lease) as writing:
            for iteration in iterations:
                writing.save(snapshot(iteration), tmp_path / str(iteration))

    with pytest.raises(PermissionError):
        save(1, 2)
    with pytest.raises(PermissionError):
        save(3)
    assert threading.active_count() == before


def test_training_survives_a_store_that_does_not_answer(
    store: Store,
    lease: Lease,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    with journal(store, lease) as writing:
        with monkeypatch.context() as outage:
            for name in ("write", "read", "upload"):
                outage.setattr(type(store), name, fail)
            writing.log(row(1))
            writing.save(snapshot(1), tmp_path / "checkpoint")
            assert eventually(lambda: not (tmp_path / "checkpoint").exists())
            assert eventually(lambda: "its progress is not stored" in caplog.text)
            assert not writing.should_stop()
        writing.log(row(2))
        assert eventually(lambda: written(store) == [row(1), row(2)])
