"""Deliver runs to MLflow from a thread, so that it can neither slow down nor fail a training.

Every run is written to a spool on disk before it is sent. While MLflow is down, the thread tries
again. When a process ends before everything is delivered, the next process that uses the same spool
delivers the rest. When MLflow was emptied, the thread sends again all that this process has sent.
What MLflow will never take is said once, with what to do (`orchestrator.tracking.mlflow_errors`).
"""

import logging
import queue
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import ValidationError

from orchestrator.store.passwords import without_passwords
from orchestrator.store.retries import Retries
from orchestrator.tracking.mlflow_client import RunClient
from orchestrator.tracking.mlflow_errors import (
    AGAIN,
    RunDeleted,
    RunRefused,
    ServerEmptied,
    Unreachable,
    Unusable,
)
from orchestrator.tracking.runs import Run
from orchestrator.tracking.spool import Spool, abandoned_messages

log = logging.getLogger(__name__)


class Delivery:
    """A queue of runs and the thread that sends them to MLflow.

    No method raises an error of MLflow's.
    """

    def __init__(self, uri: str, spool: Path, retries: Retries) -> None:
        self.failures = 0  # attempts to reach MLflow that failed, and runs that it refused
        self._uri = uri
        self._retries = retries
        self._spool = Spool(spool)
        # None wakes the thread without a run to send.
        self._queue: queue.SimpleQueue[Run | None] = queue.SimpleQueue()
        # Connect at once, because a new sqlite file takes seconds to set up.
        self._queue.put(None)
        self._closing = threading.Event()
        self._warned: set[str] = set()
        self._failed: Counter[str] = Counter()  # how often MLflow failed at a run, by its key
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        self._thread.start()

    def enqueue(self, run: Run) -> None:
        """Write the run to the spool and leave it to the thread; return at once."""
        try:
            self._spool.append(run.model_dump_json())
        except OSError as error:
            self._warn(
                "disk",
                f"cannot write to {self._spool.folder} ({error}): "
                "if this process dies, MLflow misses some runs",
            )
        self._queue.put(run)

    def close(self) -> None:
        """Wait until everything is delivered, and leave the rest in the spool.

        The wait is shorter when MLflow is known to be down.
        """
        self._closing.set()
        self._queue.put(None)
        wait = self._retries.tracking_close_seconds
        self._thread.join(self._retries.tracking_last_try_seconds if self._down else wait)
        if not self._down:
            # MLflow may have come back during the first wait.
            self._thread.join(wait)
        if self._thread.is_alive() or self._down:
            self._warn(
                "left",
                f"what MLflow has not received is kept in {self._spool.folder}; "
                "the next job delivers it",
            )

    @property
    def _down(self) -> bool:
        return "down" in self._warned

    def _warn(self, kind: str, message: str) -> None:
        """Log one warning of each kind, without the user and password of a URI."""
        if kind not in self._warned:
            self._warned.add(kind)
            log.warning("%s", without_passwords(message))

    def _run(self) -> None:
        """Send runs in order until `close` is called, then once more. The thread runs this."""
        waiting: deque[Run] = deque()
        client: RunClient | None = None
        pause = 0.0
        while waiting or not self._closing.is_set() or not self._queue.empty():
            waiting.extend(self._next_runs(pause))
            try:
                if client is None:
                    client = self._connect()
                self._deliver(client, waiting)
                pause = 0.0
            except Unusable as error:
                self.failures += 1
                self._warn("unusable", f"{error}; training goes on without MLflow; {AGAIN}")
                return self._drop_everything()
            except Exception as error:  # noqa: BLE001 - a fault here must not end the training
                self.failures += 1
                emptied = isinstance(error, ServerEmptied) and not pause
                if isinstance(error, RunDeleted) or emptied:
                    self._warn("emptied", f"{error}; sending again what this job has sent")
                    waiting = deque(_merge([*self._sent(error), *waiting]))
                else:
                    self._warn("down", f"{error}; training goes on, and MLflow receives it later")
                if self._closing.is_set() and not isinstance(error, ServerEmptied):
                    break
                client = None
                longer = 2 * pause or self._retries.tracking_first_pause_seconds
                pause = min(self._retries.tracking_pause_seconds, longer)
        if waiting:
            self._spool.keep()
        else:
            self._spool.discard()

    def _sent(self, error: Exception) -> Iterator[Run]:
        """Yield what was sent of the runs that MLflow lacks, and of those nested in them."""
        for text in self._spool.messages():
            run = Run.model_validate_json(text)
            if not isinstance(error, RunDeleted) or error.key in (run.key, run.nested_in):
                yield run

    def _connect(self) -> RunClient:
        """Connect, and send what processes that have ended left in the spool."""
        client = RunClient(self._uri)
        if not client.shows_models:
            self._warn(
                "old",
                f"MLflow at {self._uri} is older than version 3 and has no models: its runs do not "
                "show which model came from which",
            )
        self._deliver_abandoned(client)
        return client

    def _drop_everything(self) -> None:
        """Take runs from the queue until `close` is called, and send none."""
        self._warned.discard("down")
        while not self._closing.is_set():
            self._queue.get()
        self._spool.discard()

    def _next_runs(self, pause: float) -> list[Run]:
        """Return what was enqueued. Wait `pause` seconds; if that is 0, wait for a first run."""
        messages = [] if pause else [self._queue.get()]
        # Wait a little for more, because fewer calls of MLflow are faster.
        self._closing.wait(pause or self._retries.tracking_gather_seconds)
        while not self._queue.empty():
            messages.append(self._queue.get())
        return _merge(run for run in messages if run is not None)

    def _deliver(self, client: RunClient, waiting: deque[Run]) -> None:
        """Send the runs in order, and drop each from `waiting` when MLflow has it."""
        while waiting:
            self._put(client, waiting[0])
            waiting.popleft()
            self._warned.discard("down")

    def _deliver_abandoned(self, client: RunClient) -> None:
        """Send what processes that have ended left in the spool."""
        for path, messages in abandoned_messages(self._spool.folder):
            try:
                runs = _merge(Run.model_validate_json(text) for text in messages)
            except ValidationError:
                runs = []
                self._warn(
                    "damaged", f"{path} is damaged, or of another version of Stepchain; {AGAIN}"
                )
            for run in runs:
                self._put(client, run)
            path.unlink()

    def _put(self, client: RunClient, run: Run) -> None:
        """Send a run. One that MLflow refuses, or fails at each time, must not hold up the rest."""
        try:
            client.put(run)
        except RunRefused as error:
            self.failures += 1
            self._warn(f"refused {run.key}", f"MLflow refuses {error}; its record is untouched")
        except Unreachable as error:
            self._failed[run.key] += 1
            if self._failed[run.key] < self._retries.tracking_run_attempts:
                raise
            self._warn(f"failed {run.key}", f"{run.kind} run {run.name!r} is left out: {error}")


def _merge(runs: Iterable[Run]) -> list[Run]:
    """Join all that is said of each run, where it was first said, so that fewer calls send it.

    A campaign of short steps says six things of each step and its chain while MLflow takes one.
    """
    merged: dict[str, Run] = {}
    for run in runs:
        before = merged.get(run.key)
        merged[run.key] = joined(before, run) if before else run
    return list(merged.values())


def joined(run: Run, later: Run) -> Run:
    """Return what two statements of the same run say together.

    An iteration of a step is measured once; of other values the later one counts. A finished run
    stays finished.
    """
    points = {(point.name, point.step): point for point in run.points}
    for point in later.points:
        if run.kind != "step" or (point.name, point.step) not in points:
            points[point.name, point.step] = point
    ends = later if later.status and run.status != "FINISHED" else run
    return run.model_copy(
        update={
            "status": ends.status,
            "ended": ends.ended,
            "params": run.params | later.params,
            "tags": run.tags | later.tags,
            "points": tuple(points.values()),
            "texts": run.texts | later.texts,
            "views": run.views | later.views,
            "nested_in": run.nested_in or later.nested_in,
            "data": later.data or run.data,
            "content": later.content or run.content,
            "publishes": later.publishes or run.publishes,
        }
    )
