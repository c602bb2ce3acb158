"""Write what a step reports while it runs: its stage, its curves and its checkpoints.

A thread of rank 0 writes, and looks at the lease. Training hands it rows and copies of its state,
and goes on. What the thread raises reaches the training with its next report.
"""

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Self

from orchestrator.records import layout
from orchestrator.records.attempts import CURVE_ROWS, save_checkpoint, write_curves
from orchestrator.store.base import Store, StoreError, is_local
from orchestrator.store.lease import Lease, LeaseLost
from orchestrator.store.retries import Retries
from training.checkpoint import Snapshot
from training.curves import CurveRow

log = logging.getLogger(__name__)


@dataclass
class StoreJournal:
    """The `training.journal.Journal` of a step, kept in the folder of its attempt.

    When the lease is lost, the journal stops the training with a checkpoint, from which the next
    attempt resumes. To stop a job gracefully, its driver therefore revokes the lease. The step runs
    within `with journal:`, at whose end the thread has written everything and is over.
    """

    store: Store
    key: str
    attempt: str
    lease: Lease
    retries: Retries
    leads: bool  # whether this worker writes; the others only measure time
    seconds: dict[str, float] = field(default_factory=dict)  # that each stage took
    waited: dict[str, float] = field(default_factory=dict)  # see training.journal
    _rows: list[CurveRow] = field(default_factory=list)  # of the piece of the curves being written
    _progress: dict[str, Any] = field(default_factory=dict)
    _has_news: bool = False  # whether a row is not written yet
    _written: float = 0.0  # time.monotonic() of the last write
    _checked: float = 0.0  # and of the last look at the lease
    _lost: LeaseLost | None = None
    # The checkpoint that the thread has not kept yet.
    _handed: tuple[Snapshot, Path] | None = None
    _ended: bool = False
    _error: BaseException | None = None  # that ended the thread
    _changed: threading.Condition = field(default_factory=threading.Condition)
    # Training writes at the beginning of a stage, the thread in between.
    _writing: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self.leads:
            self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if self._thread is None:
            return
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join()
        if error is None:
            self._raise_error()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Show that the step is at this stage, and measure the time it takes."""
        start = time.monotonic()
        if self.leads and self._progress.get("stage") != name:
            self._progress["stage"] = name
            self._write()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start

    def log(self, row: CurveRow) -> None:
        """Take a row of the curves. It is written with the rows that follow it."""
        self._raise_error()
        self._rows.append(row)
        self._has_news = True

    def should_stop(self) -> bool:
        """Return whether the lease is lost. The store is asked every few seconds."""
        return self._lost is not None

    def stop_if_lost(self) -> None:
        """Raise LeaseLost if the lease is known to be lost."""
        if self.leads and self._lost:
            self.stop()

    def save(self, snapshot: Snapshot, folder: Path) -> None:
        """Let the thread store a checkpoint and remove the local copy.

        It waits for the checkpoint before; when the lease is lost, it waits for this one as well.
        """
        with self._changed:
            self._wait_until_kept()
            self._handed = snapshot, folder
            self._changed.notify_all()
            if self._lost:
                self._wait_until_kept()

    def stop(self) -> NoReturn:
        """Raise LeaseLost."""
        raise self._lost or LeaseLost(f"the lease of step {self.key} is lost")

    def _work(self) -> None:
        """Write, store checkpoints and look at the lease until the step ends, in the thread."""
        flush = self.retries.flush_seconds(is_local(self.store))
        look = self.retries.lease_check_seconds
        try:
            ended = False
            while not ended:
                if self._has_news and time.monotonic() - self._written > flush:
                    self._tolerantly(self._write)
                if time.monotonic() - self._checked > look:
                    self._tolerantly(self._check_lease)
                with self._changed:
                    self._changed.wait_for(
                        lambda: self._handed or self._ended, timeout=min(flush, look)
                    )
                    handed, ended = self._handed, self._ended
                if handed:
                    self._keep(*handed)
        # Whatever it is, training raises it.
        except BaseException as error:  # noqa: BLE001
            self._error = error
        finally:
            with self._changed:
                self._changed.notify_all()

    def _keep(self, snapshot: Snapshot, folder: Path) -> None:
        """Write a checkpoint to the folder, store it, and remove the folder."""
        snapshot.write(folder)
        self._tolerantly(
            lambda: save_checkpoint(self.store, self.key, self.attempt, folder, snapshot.iteration)
        )
        shutil.rmtree(folder)
        with self._changed:
            self._handed = None
            self._changed.notify_all()

    def _wait_until_kept(self) -> None:
        """Wait until the thread has no checkpoint to keep; the caller holds the condition."""
        self._changed.wait_for(lambda: self._handed is None or self._error is not None)
        self._raise_error()

    def _raise_error(self) -> None:
        """Raise what ended the thread, if anything did."""
        if self._error is not None:
            raise self._error

    def _check_lease(self) -> None:
        try:
            self.lease.check()
        except LeaseLost as error:
            self._lost = error
        finally:
            self._checked = time.monotonic()

    def _write(self) -> None:
        """Write the rows and the progress."""
        with self._writing:
            # Training may append more rows meanwhile.
            self._has_news = False
            rows = self._rows.copy()
            if rows:
                write_curves(self.store, self.key, self.attempt, rows)
                self._progress |= rows[-1]
            if len(rows) >= CURVE_ROWS:
                del self._rows[: len(rows)]
            name = layout.progress(self.key, self.attempt)
            self.store.write(name, json.dumps(self._progress).encode())
            self._written = time.monotonic()

    def _tolerantly(self, job: Callable[[], None]) -> None:
        """Log an error of the store instead of raising it: the job is done again later."""
        try:
            job()
        except StoreError as error:
            log.warning("training continues, but its progress is not stored: %s", error)
