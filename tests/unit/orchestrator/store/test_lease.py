import json
import logging
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.store.base import Store, StoreError
from orchestrator.store.folder import FolderStore
from orchestrator.store.lease import Lease, LeaseLost, LeaseState, Stopped, read_lease
from orchestrator.store.open import open_store

KEY = "steps/k/lease.json"


class Clock:
    """A clock that the test sets."""

    def __init__(self, now: float = 0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def stored(store: Store) -> LeaseState:
    return LeaseState.model_validate_json(store.read(KEY))


def wait_until(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_a_free_lease_is_acquired_by_one(store: Store):
    first, second = Lease(store, KEY, "ada@one"), Lease(store, KEY, "bob@two")
    assert first.acquire()
    assert not second.acquire()
    assert (first.is_mine(), second.is_mine()) == (True, False)
    assert second.holder is not None
    assert second.holder.owner == "ada@one"
    assert Lease(store, "steps/other/lease.json", "bob@two").acquire()


def test_whether_a_lease_is_free_is_asked_without_taking_it(store: Store):
    clock = Clock()
    asks = Lease(store, KEY, "bob@two", period=60, clock=clock)
    assert asks.is_free()
    assert not store.exists(KEY)
    other = Lease(store, KEY, "ada@one")
    assert other.acquire()
    assert not asks.is_free()
    assert asks.holder is not None
    assert asks.holder.owner == "ada@one"
    clock.now = 59
    assert not asks.is_free()
    clock.now = 60  # it was not renewed for a whole period
    assert asks.is_free()
    assert other.is_mine()
    assert asks.acquire()
    assert asks.is_free()  # for its holder


def test_a_process_that_is_ending_takes_no_lease(tmp_path: Path):
    # Its exit handlers take a while, and its thread does not know.
    code = f"""
import atexit, threading, time
from orchestrator.store.lease import Lease
from orchestrator.store.open import open_store

store = open_store({str(tmp_path)!r})
ending = threading.Event()
taken = threading.Event()

def acquire():
    ending.wait()
    Lease(store, {KEY!r}, "ada@one").acquire()
    taken.set()

atexit.register(taken.wait, 20)
atexit.register(ending.set)
threading.Thread(target=acquire, daemon=True).start()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert not open_store(str(tmp_path)).exists(KEY)


def test_acquiring_what_one_holds_is_no_change(store: Store):
    lease = Lease(store, KEY, "ada")
    assert lease.acquire()
    assert lease.acquire()


def test_who_seizes_a_lease_has_it_also_from_copies_of_its_own(store: Store):
    lease = Lease(store, KEY, "ada")
    lease.acquire()
    handed = pickle.loads(pickle.dumps(lease))
    lease.seize()
    assert lease.is_mine()
    with pytest.raises(Stopped):
        handed.check()
    lease.beat()
    other = Lease(store, KEY, "bob")
    other.seize()
    assert (other.is_mine(), lease.is_mine()) == (True, False)
    # It stops its own work, and not what had the lease before.
    with pytest.raises(LeaseLost) as lost:
        lease.check()
    assert not isinstance(lost.value, Stopped)


def test_a_lease_without_heartbeat_is_taken_over_after_a_period_of_watching(store: Store):
    dead = Lease(store, KEY, "dead")
    clock = Clock(now=1e9)
    dead.acquire()
    watcher = Lease(store, KEY, "watcher", period=60, clock=clock)
    assert not watcher.acquire()
    clock.now += 59
    assert not watcher.acquire()
    clock.now += 2
    assert watcher.acquire()
    assert stored(store).owner == "watcher"
    with pytest.raises(LeaseLost, match=r"dead no longer holds steps/k/lease\.json"):
        dead.check()
    with pytest.raises(LeaseLost):
        dead.beat()
    dead.release()
    assert watcher.is_mine()


def test_a_lease_with_heartbeat_is_never_taken_over_whatever_its_clock_says(store: Store):
    clock = Clock()
    # This lease says that it expired long ago.
    alive = Lease(store, KEY, "alive", period=-1e6)
    alive.acquire()
    watcher = Lease(store, KEY, "watcher", period=60, clock=clock)
    for _ in range(10):
        assert not watcher.acquire()
        clock.now += 59
        alive.beat()
    assert alive.is_mine()


def test_a_watcher_that_slept_looks_again_before_it_takes(store: Store):
    alive = Lease(store, KEY, "alive")
    clock = Clock()
    alive.acquire()
    watcher = Lease(store, KEY, "watcher", period=60, clock=clock)
    watcher.acquire()
    clock.now += 1000
    alive.beat()
    assert not watcher.acquire()


def test_of_two_that_take_over_the_last_to_write_has_it(store: Store):
    Lease(store, KEY, "dead").acquire()
    clock = Clock()
    one, two = (Lease(store, KEY, name, period=60, clock=clock) for name in ("one", "two"))
    assert not one.acquire()
    assert not two.acquire()
    clock.now = 61
    assert one.acquire()
    assert not two.acquire()  # what it watched has changed
    assert one.is_mine()


def test_a_lease_that_vanished_is_lost_and_not_made_again(store: Store):
    lease = Lease(store, KEY, "ada")
    lease.acquire()
    store.delete(KEY)
    for act in (lease.beat, lease.check):
        with pytest.raises(LeaseLost):
            act()
    lease.release()
    assert not store.exists(KEY)
    assert Lease(store, KEY, "bob").acquire()


def test_bytes_that_are_no_lease_are_waited_for_and_taken_over(store: Store):
    store.write(KEY, b"{")
    clock = Clock()
    lease = Lease(store, KEY, "ada", period=60, clock=clock)
    assert not lease.acquire()
    assert lease.holder is None
    clock.now = 61
    assert lease.acquire()


def test_while_it_is_held_it_beats(store: Store):
    lease = Lease(store, KEY, "ada", interval=0.01)
    assert lease.acquire()
    with lease.held():
        wait_until(lambda: stored(store).heartbeat > 2)
        lease.check()
    assert not store.exists(KEY)


def test_it_is_released_when_the_body_fails(store: Store):
    lease = Lease(store, KEY, "ada")
    lease.acquire()
    with pytest.raises(ZeroDivisionError), lease.held():
        raise ZeroDivisionError
    assert not store.exists(KEY)


def test_a_holder_that_lost_it_is_told_and_leaves_the_new_one_alone(
    store: Store, caplog: pytest.LogCaptureFixture
):
    lease = Lease(store, KEY, "ada", interval=0.01)
    lease.acquire()
    other = Lease(open_store(store.uri), KEY, "bob")
    with lease.held():
        store.delete(KEY)
        wait_until(lambda: "ada no longer holds" in caplog.text)
        assert other.acquire()
        with pytest.raises(LeaseLost):
            lease.check()
    assert other.is_mine()


class Flaky(FolderStore):
    """A store that the test takes down."""

    down: list[bool]

    def read(self, key: str) -> bytes:
        if self.down:
            raise StoreError("the server does not answer")
        return super().read(key)


def test_a_store_that_is_down_for_a_while_costs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    store: Any = Flaky(tmp_path)
    object.__setattr__(store, "down", [])
    lease = Lease(store, KEY, "ada", interval=0.01)
    lease.acquire()
    with caplog.at_level(logging.WARNING), lease.held():
        store.down.append(True)
        wait_until(lambda: "will try again: the server does not answer" in caplog.text)
        store.down.clear()
        before = stored(store).heartbeat
        wait_until(lambda: stored(store).heartbeat > before)
        store.down.append(True)
    assert "could not release the lease" in caplog.text


def test_a_worker_that_is_handed_the_lease_can_check_it(store: Store):
    lease = Lease(store, KEY, "ada")
    lease.acquire()
    copy = pickle.loads(pickle.dumps(lease))
    copy.check()
    lease.beat()
    copy.check()


def test_a_lease_of_an_older_version_is_read_without_its_progress(store: Store):
    store.write(
        KEY,
        b'{"expires":"2999-01-01T00:00:00+00:00","heartbeat":1,"owner":"ada",'
        b'"progress":{"iteration":3},"token":"t"}',
    )
    lease = read_lease(store, KEY)
    assert lease is not None
    assert (lease.owner, lease.expired) == ("ada", False)


def test_a_lease_expires_by_its_holders_clock(store: Store):
    assert Lease(store, KEY, "ada", period=-1).acquire()
    assert stored(store).expired


@pytest.mark.parametrize("expires", ["soon", "2026-01-01T00:00:00", ""])
def test_a_lease_without_a_time_is_no_lease_and_is_taken_over(store: Store, expires: str):
    fields = {"owner": "ada", "token": "t", "heartbeat": 0, "expires": expires}
    store.write(KEY, json.dumps(fields).encode())
    assert read_lease(store, KEY) is None
    clock = Clock()
    watcher = Lease(store, KEY, "bob", period=60, clock=clock)
    assert not watcher.acquire()
    clock.now += 60
    assert watcher.acquire()
