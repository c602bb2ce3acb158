"""Lease work to one process at a time, with a small object that names the process.

A lease is advisory: no result depends on it. Two processes that both believe they hold it do the
work twice, both times validly. A lease only saves the time of the second. Clocks of different
machines are never compared when a lease is taken over. A lease is stale when its bytes, which every
heartbeat changes, stayed the same for a whole period of the watcher's own clock.
"""

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from pydantic import ConfigDict, ValidationError, field_validator

from orchestrator.store.base import NotFound, Store, StoreError
from orchestrator.store.canonical import canonical_json
from orchestrator.store.retries import DEFAULT_RETRIES
from training.config import Document

log = logging.getLogger(__name__)


class LeaseLost(Exception):
    """Another process holds the lease, or it is gone. The work must stop."""


class Stopped(LeaseLost):
    """The job that holds the lease is being stopped."""


class LeaseState(Document):
    """The lease as it is stored. Fields that this version does not know are ignored."""

    model_config = ConfigDict(extra="ignore")

    owner: str  # user and host, for people
    token: str  # differs from holder to holder
    heartbeat: int  # counts up while the holder is alive
    expires: str  # UTC by the holder's clock, ISO 8601
    stops: str | None = None  # the token that it was taken back from, to stop its work

    @field_validator("expires")
    @classmethod
    def _is_a_time(cls, expires: str) -> str:
        if datetime.fromisoformat(expires).tzinfo is None:
            raise ValueError("has no time zone")
        return expires

    @property
    def expired(self) -> bool:
        """Return True if the lease has expired by its holder's clock.

        This is for people and for planning. A process takes over a lease only after it has watched
        the lease for a whole period.
        """
        return datetime.fromisoformat(self.expires) <= datetime.now(UTC)


class Lease:
    """The right to do some work. Call `acquire` until it returns True, then work in `held()`."""

    def __init__(
        self,
        store: Store,
        key: str,
        owner: str,
        *,
        period: float = DEFAULT_RETRIES.lease_seconds,
        interval: float = DEFAULT_RETRIES.heartbeat_seconds,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare to acquire a lease.

        Args:
            store: The store that holds the lease.
            key: Key of the lease's object.
            owner: User and host, for people.
            period: Seconds without a heartbeat after which a lease is free.
            interval: Seconds between heartbeats.
            clock: Seconds of a clock that never goes back.
        """
        self.key = key
        # The lease of another holder that `acquire` or `is_free` last found, if it could be read.
        self.holder: LeaseState | None = None
        self._store = store
        self._owner = owner
        self._period = period
        self._interval = interval
        self._clock = clock
        self._token = uuid.uuid4().hex
        self._heartbeat = 0
        self._stops: str | None = None  # the token that `seize` took the lease from
        # The bytes of another holder's lease, and the time at which they were first seen.
        self._seen: tuple[bytes, float] | None = None

    def acquire(self) -> bool:
        """Try to acquire the lease, without waiting.

        Return True if the lease was free, or was stale while this very object watched it. A process
        that is ending gets none, because nobody would release it: its threads run on while its exit
        handlers do, and a campaign that is stopped releases its trials' leases then.
        """
        if not threading.main_thread().is_alive():
            return False
        if self._store.write(self.key, self._state(), only_if_absent=True):
            return True
        found = self._look()
        if found is None:
            # It was released just now, and is free at the next attempt.
            return False
        if self._is_own(self.holder):
            # The answer to the first write was lost, and the store was asked again.
            return True
        if not self._is_stale(found):
            return False
        self._store.write(self.key, self._state())
        # Of two processes that take over at once, the last to write holds the lease.
        return self.is_mine()

    def is_free(self) -> bool:
        """Return True if `acquire` would now get the lease, which this asks without writing."""
        if not threading.main_thread().is_alive():
            return False
        found = self._look()
        return found is None or self._is_own(self.holder) or self._is_stale(found)

    def is_mine(self) -> bool:
        """Return True if the stored lease is this holder's."""
        return self._is_own(read_lease(self._store, self.key))

    def check(self) -> None:
        """Raise LeaseLost unless the stored lease is this holder's, Stopped if it was seized."""
        found = read_lease(self._store, self.key)
        if found and found.stops == self._token:
            raise Stopped(f"{self.key} was taken back, because its job is being stopped")
        if not self._is_own(found):
            raise LeaseLost(
                f"{self._owner} no longer holds {self.key}: "
                "it was slow, and another worker took over"
            )

    def beat(self) -> None:
        """Renew the lease. Raise LeaseLost if it is lost, and never takes it back."""
        self.check()
        self._heartbeat += 1
        self._store.write(self.key, self._state())

    def seize(self, token: str | None = None) -> None:
        """Take the lease from its holder, so that the holder's work stops.

        Args:
            token: Of the holder. None: of this object and its copies, which lose the lease.
        """
        self._stops = token or self._token
        self._token = uuid.uuid4().hex
        self._store.write(self.key, self._state())

    @property
    def seized(self) -> bool:
        """Return whether this very object took the lease from its work."""
        return self._stops is not None

    def release(self) -> None:
        """Delete the lease if it is this holder's."""
        if self.is_mine():
            self._store.delete(self.key)

    @contextlib.contextmanager
    def held(self) -> Iterator["Lease"]:
        """Renew an acquired lease from a thread while the body runs, then release it.

        The body learns of a loss when it calls `check`. While the store does not answer, the thread
        keeps trying.
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
            except StoreError as error:
                # The work is done, and the lease expires by itself.
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
        state = LeaseState(
            owner=self._owner,
            token=self._token,
            heartbeat=self._heartbeat,
            expires=expires.isoformat(timespec="seconds"),
            stops=self._stops,
        )
        return canonical_json(state)

    def _look(self) -> bytes | None:
        """Return the stored lease and note its holder; None if there is no lease."""
        try:
            found = self._store.read(self.key)
        except NotFound:
            return None
        self.holder = _parse(found)
        return found

    def _is_stale(self, found: bytes) -> bool:
        """Return whether another holder's bytes stayed the same for a period while we watched."""
        if self._seen is None or self._seen[0] != found:
            self._seen = found, self._clock()
        return self._clock() - self._seen[1] >= self._period

    def _is_own(self, state: LeaseState | None) -> bool:
        return state is not None and state.token == self._token


def read_lease(store: Store, key: str) -> LeaseState | None:
    """Return the stored lease, expired or not, or None if there is none that can be read."""
    try:
        return _parse(store.read(key))
    except NotFound:
        return None


def _parse(data: bytes) -> LeaseState | None:
    """Return the lease, or None for bytes that are none. Those too are watched and taken over."""
    try:
        return LeaseState.model_validate_json(data)
    except ValidationError:
        return None
