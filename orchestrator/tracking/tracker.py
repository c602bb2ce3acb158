"""What is trained and published, shown in MLflow while it happens.

Records are the truth and MLflow is their mirror, so nothing here may slow or fail a training. A `Tracker` only notes what is to
be said (on disk too, in case the process dies), and a thread says it: later and again if MLflow is slow, down or emptied.
What stays unsaid when a process ends, the next tracker of the same spool says. `orchestrator.tracking.rebuild` says everything anew.

Only the process that drives a training has a tracker; workers never talk to MLflow.
"""

import hashlib
import logging
import os
import queue
import re
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Self

from orchestrator.planning.chain import Chain
from orchestrator.planning.resolver import PlannedStep
from orchestrator.records import layout
from orchestrator.records.provenance import submission
from orchestrator.records.results import ChainResult, named_scores
from orchestrator.records.schema import DataSource, StepRecord
from orchestrator.store.base import Store
from orchestrator.store.cache import default_cache
from orchestrator.tracking.mlflow_client import GoneError, RefusedError, RunClient
from orchestrator.tracking.runs import (
    Run,
    Status,
    chain_run,
    curve_points,
    published,
    scored,
    step_run,
    whole_chain,
)
from orchestrator.tracking.spool import Spool, adopt
from training.curves import CurveRow
from training.metrics import Convention, Scores

log = logging.getLogger(__name__)
GATHER = 0.5  # seconds to wait for more before talking to MLflow
LAST_TRY = 10.0  # seconds to wait in the end for an MLflow that was down
LONGEST_PAUSE = 30.0  # seconds between two tries while MLflow is down


def tracking_uri(store: Store, uri: str | None = None) -> str:
    """Where MLflow is: `uri`, else MLFLOW_TRACKING_URI, else an sqlite file in the store's folder (S3: where one works)."""
    beside = store.local_path(layout.MLFLOW_DATABASE) or Path(layout.MLFLOW_DATABASE).absolute()
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{beside}"


def spool_folder(store: Store) -> Path:
    """Where trackers of this store leave what they could not say; a submitted job's own folder does not outlive it."""
    name = hashlib.sha256(store.uri.encode()).hexdigest()[:16]
    return store.local_path(layout.TRACKING_SPOOL) or default_cache() / layout.TRACKING_SPOOL / name


def store_tracker(store: Store, uri: str | None = None) -> "Tracker":
    """Who tells MLflow (`uri`, see `tracking_uri`) of this store's chains, to be entered as a context."""
    return Tracker(tracking_uri(store, uri), spool_folder(store))


class Tracker:
    """Says to MLflow what happens. Every method returns at once and raises nothing of MLflow's.

    Leave it as a context manager, or `close` it: it marks the runs that were begun and not finished, and waits until all is
    said, up to `patience` seconds (less when MLflow is known to be down).
    """

    def __init__(self, uri: str, spool: Path, *, patience: float = 60.0) -> None:
        self.failures = 0  # how often MLflow could not be told
        self._uri, self._patience = uri, patience
        self._spool = Spool(spool)
        self._open: dict[str, Run] = {}  # runs begun here and not ended: only what identifies them
        self._said: queue.SimpleQueue[Run | None] = queue.SimpleQueue()
        self._said.put(None)  # connect at once: a new sqlite file takes seconds to set up
        self._closing = threading.Event()
        self._warned: set[str] = set()
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close("FAILED" if kind is not None and issubclass(kind, Exception) else "KILLED")

    def chain_started(self, chain: Chain, steps: Sequence[PlannedStep]) -> Run:
        """Returns the chain's run, which the other methods ask for."""
        return self._begin(chain_run(chain, [step.key for step in steps], _now()))

    def chain_progressed(
        self,
        chain: Run,
        records: Sequence[StepRecord],
        scores: Sequence[Scores],
        class_names: Mapping[int, str],
    ) -> None:
        """Show the scores after each of the chain's steps so far, in order."""
        self._say(scored(chain, records, [named_scores(each, class_names) for each in scores]))

    def chain_finished(self, result: ChainResult, convention: Convention) -> None:
        """The whole chain, read back from the store."""
        run = whole_chain(result, convention)
        self._open.pop(run.key, None)
        self._say(run)

    def step_started(self, step: PlannedStep, data: DataSource, chain: Run) -> None:
        """A step of this chain is about to be trained on `data`."""
        self._begin(step_run(step, chain.experiment, data, chain.key, _now()))

    def curves(self, key: str, rows: Iterable[CurveRow]) -> None:
        """Rows of the training curves of a step that was started and not ended, as they come; a row may come again."""
        if run := self._open.get(key):
            self._say(run.model_copy(update={"points": curve_points(rows)}))

    def step_finished(
        self,
        record: StepRecord,
        scores: Scores,
        class_names: Mapping[int, str],
        rows: Iterable[CurveRow],
        chain: Run,
    ) -> None:
        """Show a published step with its scores and the whole of its curves."""
        self._open.pop(record.key, None)
        named = named_scores(scores, class_names)
        self._say(published(record, chain.experiment, chain.key, named, rows))

    def step_failed(self, key: str) -> None:
        """The attempt at the step with that key is over; it may be started again."""
        self._end(key, "FAILED")

    def chain_failed(self, chain: Run) -> None:
        """A chain that was started will not be finished; it may be started again."""
        self._end(chain.key, "FAILED")

    def tell(self, runs: Iterable[Run]) -> None:
        """Runs as they are to be, such as a campaign's (`orchestrator.tracking.campaign_runs`)."""
        for run in runs:
            self._say(run)

    def close(self, status: Status = "KILLED") -> None:
        """Give the runs that are still open this status, wait until all is said, and leave the rest in the spool."""
        for key in list(self._open):
            self._end(key, status)
        self._closing.set()
        self._said.put(None)
        self._thread.join(LAST_TRY if self._down else self._patience)
        if not self._down:  # or not any more
            self._thread.join(self._patience)
        if self._thread.is_alive() or self._down:
            self._warn(
                "left",
                f"what MLflow has not been told waits in {self._spool.folder}; the next run tells it",
            )

    @property
    def _down(self) -> bool:
        return "down" in self._warned

    def _begin(self, run: Run) -> Run:
        if job := submission():
            run = run.model_copy(update={"tags": run.tags | {"stepchain.submission": job}})
        self._open[run.key] = run.model_copy(
            update={"params": {}, "tags": {}, "status": None, "data": None}
        )
        self._say(run)
        return run

    def _end(self, key: str, status: Status) -> None:
        if run := self._open.pop(key, None):
            self._say(run.model_copy(update={"status": status, "ended": _now()}))

    def _say(self, run: Run) -> None:
        try:
            self._spool.append(run.model_dump_json())
        except OSError as error:
            self._warn(
                "disk",
                f"cannot write to {self._spool.folder} ({error}): if this process dies, MLflow misses some of it",
            )
        self._said.put(run)

    def _warn(self, kind: str, message: str) -> None:
        """Once of each kind; a URI's user and password are no one's business."""
        if kind not in self._warned:
            self._warned.add(kind)
            log.warning("%s", re.sub(r"//[^/@\s]+@", "//", message))

    def _work(self) -> None:
        """The thread: says what there is to say, in order, until told to close; then once more."""
        waiting: deque[Run] = deque()
        mirror, pause = None, 0.0
        while waiting or not self._closing.is_set() or not self._said.empty():
            waiting.extend(self._gather(pause))
            try:
                if mirror is None:
                    mirror = RunClient(self._uri)
                    self._say_what_others_left(mirror)
                while waiting:
                    self._put(mirror, waiting[0])
                    waiting.popleft()
                    self._warned.discard("down")
                pause = 0.0
            except Exception as error:  # noqa: BLE001 - whatever MLflow's transport raises, training must not notice
                self.failures += 1
                emptied = isinstance(error, GoneError) and not pause
                if emptied:
                    self._warn(
                        "emptied",
                        f"MLflow was emptied ({error}); it is told again what this process said",
                    )
                    waiting = deque(
                        _merged([*map(Run.model_validate_json, self._spool.messages()), *waiting])
                    )
                else:
                    self._warn(
                        "down",
                        f"MLflow at {self._uri} cannot be told ({error}); training goes on, and it is told later",
                    )
                if self._closing.is_set() and not emptied:
                    break
                mirror, pause = None, min(LONGEST_PAUSE, 2 * pause or 1.0)
        if waiting:
            self._spool.keep()
        else:
            self._spool.discard()

    def _gather(self, pause: float) -> list[Run]:
        """What was said meanwhile. Waits `pause` seconds if that is not 0, else until something is said."""
        said = [] if pause else [self._said.get()]
        self._closing.wait(pause or GATHER)
        while not self._said.empty():
            said.append(self._said.get())
        return _merged(run for run in said if run is not None)

    def _say_what_others_left(self, mirror: RunClient) -> None:
        for path, messages in adopt(self._spool.folder):
            for run in _merged(map(Run.model_validate_json, messages)):
                self._put(mirror, run)
            path.unlink()

    def _put(self, mirror: RunClient, run: Run) -> None:
        try:
            mirror.put(run)
        except RefusedError as error:
            self.failures += 1
            self._warn(f"refused {run.key}", f"MLflow refuses {error}; its record is untouched")


def _merged(runs: Iterable[Run]) -> list[Run]:
    """The same in fewer calls: runs one after another that differ in their points alone become one."""
    alike = groupby(runs, lambda run: run.model_copy(update={"points": ()}))
    return [
        same.model_copy(update={"points": tuple(p for run in group for p in run.points)})
        for same, group in alike
    ]


def _now() -> int:
    return int(1000 * time.time())
