"""Report what is trained and published to MLflow while it happens.

Records are the truth, and MLflow is rebuilt from them at any time
(`orchestrator.tracking.rebuild`). A `Tracker` turns events into runs, and
`orchestrator.tracking.delivery` sends these from a thread. Only the process that drives a training
has a tracker. Workers never talk to MLflow.
"""

import hashlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from orchestrator.planning.chain import Chain
from orchestrator.planning.resolver import PlannedStep
from orchestrator.records import layout
from orchestrator.records.provenance import submission
from orchestrator.records.results import ChainResult
from orchestrator.records.schema import DataSource, StepRecord
from orchestrator.store.base import Store
from orchestrator.store.cache import default_cache
from orchestrator.store.retries import DEFAULT_RETRIES, Retries
from orchestrator.tracking.delivery import Delivery
from orchestrator.tracking.metric_names import score_metrics
from orchestrator.tracking.runs import (
    Run,
    Status,
    add_step_scores,
    build_chain_run,
    build_finished_chain_run,
    build_published_step_run,
    build_step_run,
    curve_points,
)
from training.curves import CurveRow
from training.metrics import Convention, Scores


def tracking_uri(store: Store, uri: str | None = None) -> str:
    """Return where MLflow is.

    The first of these that is given counts: `uri`, MLFLOW_TRACKING_URI, an sqlite file in the
    store's folder. A store on S3 has no folder, and the file lies in the working directory.
    """
    file = store.local_path(layout.MLFLOW_DATABASE) or Path(layout.MLFLOW_DATABASE).absolute()
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{file}"


def spool_folder(store: Store) -> Path:
    """Return where trackers of this store keep the runs that they could not deliver.

    For a store on S3 it lies in the machine's cache, because the folder of a submitted job is
    deleted with the job.
    """
    name = hashlib.sha256(store.uri.encode()).hexdigest()[:16]
    in_cache = default_cache() / layout.TRACKING_SPOOL / name
    return store.local_path(layout.TRACKING_SPOOL) or in_cache


def open_tracker(store: Store, uri: str | None = None) -> "Tracker":
    """Return a tracker of this store's chains. The caller enters it as a context.

    Args:
        store: The store; its tracker uses its spool.
        uri: Where MLflow is; see `tracking_uri` for the default.
    """
    return Tracker(tracking_uri(store, uri), spool_folder(store))


class Tracker:
    """Reports events to MLflow. Every method returns at once and raises no error of MLflow's.

    Leave it as a context manager, or call `close`.
    """

    def __init__(self, uri: str, spool: Path, retries: Retries = DEFAULT_RETRIES) -> None:
        """Start to deliver.

        Args:
            uri: Where MLflow is.
            spool: Folder of runs that could not be delivered.
            retries: How long to wait for MLflow.
        """
        self._delivery = Delivery(uri, spool, retries)
        # Runs that began here and have not ended, reduced to what identifies them.
        self._open: dict[str, Run] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close("FAILED" if kind is not None and issubclass(kind, Exception) else "KILLED")

    @property
    def failures(self) -> int:
        """Return how many attempts to deliver failed."""
        return self._delivery.failures

    def chain_started(self, chain: Chain, steps: Sequence[PlannedStep]) -> Run:
        """Report that a chain begins.

        Args:
            chain: The chain.
            steps: All its steps, in order.

        Returns:
            The chain's run, which the other methods ask for.
        """
        return self._begin(build_chain_run(chain, [step.key for step in steps], _now()))

    def chain_progressed(
        self,
        chain: Run,
        records: Sequence[StepRecord],
        scores: Sequence[Scores],
        class_names: Mapping[int, str],
    ) -> None:
        """Report the scores after each of the chain's first steps.

        Args:
            chain: What `chain_started` returned.
            records: The steps that are published, in order.
            scores: How each of them scored.
            class_names: Names of all classes by dataset class id.
        """
        named = [score_metrics(each, class_names) for each in scores]
        self._delivery.enqueue(add_step_scores(chain, records, named))

    def chain_finished(self, result: ChainResult, convention: Convention) -> None:
        """Report a published chain, as it was read back from the store."""
        run = build_finished_chain_run(result, convention)
        self._open.pop(run.key, None)
        self._delivery.enqueue(run)

    def chain_stopped(self, chain: Run) -> None:
        """Report that a rule does not continue a chain. It may start again."""
        self._end(chain.key, "KILLED")

    def chain_failed(self, chain: Run) -> None:
        """Report that a chain will not be finished. It may start again."""
        self._end(chain.key, "FAILED")

    def step_started(self, step: PlannedStep, data: DataSource, chain: Run) -> None:
        """Report that a step of this chain is about to be trained on `data`."""
        self._begin(build_step_run(step, chain.experiment, data, chain.key, _now()))

    def curves(self, key: str, rows: Iterable[CurveRow]) -> None:
        """Report rows of the training curves of a step that was started. A row may be repeated."""
        if run := self._open.get(key):
            self._delivery.enqueue(run.model_copy(update={"points": curve_points(rows)}))

    def step_finished(
        self,
        record: StepRecord,
        scores: Scores,
        class_names: Mapping[int, str],
        rows: Iterable[CurveRow],
        chain: Run,
    ) -> None:
        """Report a published step.

        Args:
            record: The step's record.
            scores: How the step scored.
            class_names: Names of all classes by dataset class id.
            rows: All rows of its training curves.
            chain: What `chain_started` returned for the chain that the step belongs to.
        """
        self._open.pop(record.key, None)
        named = score_metrics(scores, class_names)
        run = build_published_step_run(record, chain.experiment, chain.key, named, rows)
        self._delivery.enqueue(run)

    def step_failed(self, key: str) -> None:
        """Report that an attempt at the step failed. The step may start again."""
        self._end(key, "FAILED")

    def report(self, runs: Iterable[Run]) -> None:
        """Report runs that are complete, such as a campaign's."""
        for run in runs:
            self._delivery.enqueue(run)

    def close(self, status: Status = "KILLED") -> None:
        """Give the runs that are still open this status, and wait until everything is delivered.

        What cannot be delivered in time stays in the spool for the next tracker.
        """
        for key in list(self._open):
            self._end(key, status)
        self._delivery.close()

    def _begin(self, run: Run) -> Run:
        if job := submission():
            run = run.model_copy(update={"tags": run.tags | {"stepchain.submission": job}})
        self._open[run.key] = run.model_copy(
            update={"params": {}, "tags": {}, "status": None, "data": None}
        )
        self._delivery.enqueue(run)
        return run

    def _end(self, key: str, status: Status) -> None:
        if run := self._open.pop(key, None):
            self._delivery.enqueue(run.model_copy(update={"status": status, "ended": _now()}))


def _now() -> int:
    return int(1000 * time.time())
