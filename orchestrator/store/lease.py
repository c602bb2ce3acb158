"""One worker at a time on a step, by courtesy: a small object beside the step says who is at it.

Correctness never rests on a lease. Two workers that both believe they hold it write two attempts, both valid; a lease only
saves the second one's time. Clocks of different machines are never compared: a lease is stale when its bytes, which every
heartbeat changes, stayed the same for a whole period of the watcher's own clock.
"""

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from pydantic import ConfigDict, ValidationError

from orchestrator.store.base import NotFound, Store, StoreError
from orchestrator.store.canonical import canonical_json
from training.config import Document

log = logging.getLogger(__name__)

GRACE_SECONDS = (
    25.0  # for a step that is stopped to keep a checkpoint; schedulers give 30 s before they kill
)


class LeaseLost(Exception):
    """The step's lease is gone or another's: stop, and leave the step to whoever holds it."""


class LeaseState(Document):
    """The lease as it is stored. Fields that this version does not know are ignored."""

    model_config = ConfigDict(extra="ignore")

    owner: str  # for people: user and host
    token: str  # one holder's own
    heartbeat: int  # counts up while the holder lives
    expires: str  # UTC by the holder's clock, ISO 8601

    @property
    def expired(self) -> bool:
        """Return True if the lease has run out by its holder's clock.

        Good enough to tell people; a lease is only ever taken over by what a watcher saw itself.
        """
        return datetime.fromisoformat(self.expires) <= datetime.now(UTC)


class Lease:
    """The right of way on one step. `acquire` until it says True, then work inside `with lease.held():`."""

    def __init__(
        self,
        store: Store,
        key: str,
        owner: str,
        *,
        period: float = 60,
        interval: float = 10,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`period`: seconds without a heartbeat after which a lease is free; `interval`: seconds between heartbeats."""
        self.holder: LeaseState | None = (
            None  # who had it when `acquire` last said False; None if that cannot be read
        )
        self.key = key  # of the object in the store
        self._store, self._owner = store, owner
        self._period, self._interval, self._clock = period, interval, clock
        self._token, self._heartbeat = uuid.uuid4().hex, 0
        self._seen: tuple[bytes, float] | None = None  # another's lease, and since when it reads so

    def acquire(self) -> bool:
        """One attempt, without waiting: True if the lease was free, or stale in the eyes of this very object."""
        if self._store.write(self.key, self._state(), only_if_absent=True):
            return True
        try:
            found = self._store.read(self.key)
        except NotFound:  # released this moment: free at the next attempt
            return False
        self.holder = _parsed(found)
        if self._is_own(self.holder):  # an answer of the store got lost, and the write was repeated
            return True
        if self._seen is None or self._seen[0] != found:
            self._seen = found, self._clock()
        if self._clock() - self._seen[1] < self._period:
            return False
        self._store.write(self.key, self._state())
        return self.is_mine()  # of two that take over, the last to write has it

    def is_mine(self) -> bool:
        """Whether the stored lease is this holder's."""
        try:
            return self._is_own(_parsed(self._store.read(self.key)))
        except NotFound:
            return False

    def check(self) -> None:
        """Raises LeaseLost unless the stored lease is this holder's."""
        if not self.is_mine():
            raise LeaseLost(
                f"{self._owner} no longer holds {self.key}: it was slow, and another worker took over"
            )

    def beat(self) -> None:
        """Renew the lease. Raises LeaseLost, and never takes back one that is gone."""
        self.check()
        self._heartbeat += 1
        self._store.write(self.key, self._state())

    def seize(self) -> None:
        """Take the lease from whoever has it, copies of this very object included, to have their work stopped."""
        self._token = uuid.uuid4().hex
        self._store.write(self.key, self._state())

    def release(self) -> None:
        """Delete the lease if it is this holder's."""
        if self.is_mine():
            self._store.delete(self.key)

    @contextlib.contextmanager
    def held(self) -> Iterator["Lease"]:
        """Renew an acquired lease from a thread while the body runs, then release it.

        The body learns of a loss when it calls `check`. While the store does not answer, the heart goes on trying.
        """
        stop = threading.Event()
        heart = threading.Thread(
            target=self._beat_until, args=(stop,), name=f"lease {self.key}", daemon=True
        )
        heart.start()
        try:
            yield self
        finally:
            stop.set()
            heart.join()
            try:
                self.release()
            except StoreError as error:  # no reason to fail what was done under it: it will run out
                log.warning("could not release the lease: %s", error)

    def _beat_until(self, stop: threading.Event) -> None:
        while not stop.wait(self._interval):
            try:
                self.beat()
            except LeaseLost as error:
                log.warning("%s", error)
                return
            except StoreError as error:
                log.warning("could not renew the lease, will try again: %s", error)

    def _state(self) -> bytes:
        expires = datetime.now(UTC) + timedelta(seconds=self._period)
        return canonical_json(
            LeaseState(
                owner=self._owner,
                token=self._token,
                heartbeat=self._heartbeat,
                expires=expires.isoformat(timespec="seconds"),
            )
        )

    def _is_own(self, state: LeaseState | None) -> bool:
        return state is not None and state.token == self._token


def read_lease(store: Store, key: str) -> LeaseState | None:
    """Who has the lease of a step, alive or not; None while there is no lease that can be read."""
    try:
        return _parsed(store.read(key))
    except NotFound:
        return None


def _parsed(data: bytes) -> LeaseState | None:
    """The lease, or None for bytes that are none; those too are waited for, and then taken over."""
    try:
        return LeaseState.model_validate_json(data)
    except ValidationError:
        return None
