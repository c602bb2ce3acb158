"""Write what a step reports while it runs: its stage, its curves and its checkpoints."""

import json
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.records import layout
from orchestrator.records.attempts import CURVE_ROWS, save_checkpoint, write_curves
from orchestrator.store.base import Store, StoreError, is_local
from orchestrator.store.lease import Lease, LeaseLost
from orchestrator.store.retries import Retries
from training.curves import CurveRow

log = logging.getLogger(__name__)


@dataclass
class StoreJournal:
    """The `training.journal.Journal` of a step, kept in the folder of its attempt.

    When the lease is lost, the journal stops the training with a checkpoint, from which the next
    attempt resumes. To stop a job gracefully, its driver therefore revokes the lease.
    """

    store: Store
    key: str
    attempt: str
    lease: Lease
    retries: Retries
    leads: bool  # whether this worker writes; the others only measure time
    seconds: dict[str, float] = field(default_factory=dict)  # that each stage took
    _rows: list[CurveRow] = field(default_factory=list)  # of the piece of the curves being written
    _progress: dict[str, Any] = field(default_factory=dict)
    _written: float = 0.0  # time.monotonic() of the last write
    _checked: float = 0.0  # and of the last look at the lease
    _lost: LeaseLost | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Show that the step is at this stage, and measure the time it takes."""
        start = time.monotonic()
        if self.leads:
            self._progress["stage"] = name
            self._write()
        yield
        self.seconds[name] = time.monotonic() - start

    def log(self, row: CurveRow) -> None:
        """Take a row of the curves. It is written with the rows that follow it."""
        self._rows.append(row)
        period = self.retries.flush_seconds(is_local(self.store))
        with _tolerating_outages():
            if time.monotonic() - self._written > period:
                self._write()

    def should_stop(self) -> bool:
        """Return whether the lease is lost. The store is asked every few seconds."""
        now = time.monotonic()
        if now - self._checked > self.retries.lease_check_seconds:
            self._checked = now
            with _tolerating_outages():
                self._check_lease()
        return self._lost is not None

    def save(self, folder: Path, iteration: int) -> None:
        """Store a checkpoint and remove the local copy. Raise LeaseLost if the lease is lost."""
        with _tolerating_outages():
            save_checkpoint(self.store, self.key, self.attempt, folder, iteration)
            self._check_lease()
        shutil.rmtree(folder)
        if self._lost:
            raise self._lost

    def _check_lease(self) -> None:
        try:
            self.lease.check()
        except LeaseLost as error:
            self._lost = error

    def _write(self) -> None:
        """Write the rows and the progress."""
        if self._rows:
            write_curves(self.store, self.key, self.attempt, self._rows)
            self._progress |= self._rows[-1]
        if len(self._rows) >= CURVE_ROWS:
            self._rows = []
        name = layout.progress(self.key, self.attempt)
        self.store.write(name, json.dumps(self._progress).encode())
        self._written = time.monotonic()


@contextmanager
def _tolerating_outages() -> Iterator[None]:
    """Log an error of the store instead of raising it: the next row or checkpoint tries again."""
    try:
        yield
    except StoreError as error:
        log.warning("training continues, but its progress is not stored: %s", error)
