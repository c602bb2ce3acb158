"""One worker's part of a step: fetch, train, publish the files, score them as they were published.

Every worker of a step calls `train` at once; rank 0 writes for all. What it reads and writes is in the store, so a worker may
run on any machine and be replaced at any moment. No Ray here: one process can be a whole team.
"""

import json
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow
import pyarrow.parquet
import torch
import torch.distributed as distributed

from orchestrator.datasets.stored_split import open_stored_split
from orchestrator.planning.resolver import PlannedStep
from orchestrator.records import layout
from orchestrator.records.attempts import (
    CURVE_ROWS,
    fetch_folder,
    save_checkpoint,
    sound_checkpoint,
    upload_folder,
    write_curves,
)
from orchestrator.records.schema import File, Scoring, StepRecord
from orchestrator.store.base import NotFound, Store, StoreError, is_local
from orchestrator.store.cache import CorruptedObject, default_cache, open_object
from orchestrator.store.lease import Lease, LeaseLost
from training.config import InputError
from training.curves import CurveRow
from training.data.manifest import Manifest
from training.evaluate import evaluate
from training.fit import fit
from training.runtime import Runtime

log = logging.getLogger(__name__)

FLUSH_SECONDS = {True: 2, False: 10}  # between writes of the curves, to a folder and to a server
LEASE_SECONDS = 2  # between looks at the lease


@dataclass(frozen=True)
class Assignment:
    """All that a worker must know to train a step."""

    store: Store
    planned: PlannedStep
    attempt: str
    lease: Lease
    dataset: str  # the name of what it trains on
    manifest: Manifest
    parent: StepRecord | None
    scoring: Scoring


@dataclass(frozen=True)
class TrainingOutcome:
    """What became of it, as rank 0 tells."""

    files: dict[str, File]
    confusion: bytes  # Parquet
    resumed_from: int  # iterations that a checkpoint had already
    seconds: dict[str, float]
    device: str
    started: float  # Unix time at which the worker began


def train(assignment: Assignment, runtime: Runtime) -> TrainingOutcome:
    """Train and score one step. Raises LeaseLost, StoreError, and what `training.fit.fit` raises."""
    store, planned = assignment.store, assignment.planned
    files_folder = layout.files_folder(planned.key, assignment.attempt)
    journal = Journal(store, planned.key, assignment.attempt, assignment.lease, runtime)
    started, seconds = time.time(), {}
    with TemporaryDirectory(prefix="stepchain-") as scratch, ExitStack() as in_use:
        with _timed(seconds, "localise"):
            journal.stage("localise")
            masks = planned.step.task.supervision == "pixel"
            data = open_stored_split(
                store,
                assignment.manifest,
                "train",
                default_cache(),
                dataset=assignment.dataset,
                rows=planned.rows,
                masks=masks,
            )
            parent = (
                fetch_published(store, assignment.parent, Path(scratch, "parent"))
                if assignment.parent
                else None
            )
            weights = planned.step.model.weights
            encoder_weights = None
            if weights:
                file = in_use.enter_context(
                    open_object(store, layout.encoder_weights(weights), weights, default_cache())
                )
                encoder_weights = Path(file.name)
            checkpoint = broadcast_object(
                sound_checkpoint(store, planned.key) if runtime.leads else None, runtime
            )
            resume = (
                fetch_folder(store, checkpoint.folder, checkpoint.files, Path(scratch, "resume"))
                if checkpoint
                else None
            )
        with _timed(seconds, "train"):
            journal.stage("train")
            result = fit(
                planned.step,
                data,
                planned.rows,
                runtime,
                parent=parent,
                encoder_weights=encoder_weights,
                folder=Path(scratch),
                resume=resume,
                save=journal.save,
                log=journal.log,
            )
        with _timed(seconds, "publish"):
            journal.stage("publish")
            files = broadcast_object(
                upload_folder(store, result, files_folder) if runtime.leads else None, runtime
            )
            published = fetch_folder(store, files_folder, files, Path(scratch, "published"))
        with _timed(seconds, "evaluate"):
            journal.stage("evaluate")
            confusion = score(store, published, assignment.scoring, runtime)
    return TrainingOutcome(
        files,
        confusion,
        checkpoint.iteration if checkpoint else 0,
        seconds,
        device_name(runtime.device),
        started,
    )


def score(store: Store, model_folder: Path, scoring: Scoring, runtime: Runtime) -> bytes:
    """Confusion counts of every image of a split, as Parquet on rank 0 and empty elsewhere; workers share the images."""
    data = open_stored_split(
        store, scoring.manifest, scoring.split, default_cache(), dataset=scoring.dataset
    )
    tables = gather_object(evaluate(model_folder, data, scoring.config, runtime), runtime)
    if not runtime.leads:
        return b""
    # In an order that does not tell how many workers there were.
    table = pyarrow.concat_tables(tables).sort_by(
        [(name, "ascending") for name in ("image", "truth", "predicted")]
    )
    file = BytesIO()
    pyarrow.parquet.write_table(table, file, compression="zstd")
    return file.getvalue()


def score_published(
    store: Store, record: StepRecord, scoring: Scoring, runtime: Runtime
) -> tuple[bytes, str]:
    """Score a published step; returns the confusion counts and the device."""
    with TemporaryDirectory(prefix="stepchain-") as scratch:
        folder = fetch_published(store, record, Path(scratch, "published"))
        return score(store, folder, scoring, runtime), device_name(runtime.device)


def fetch_published(store: Store, record: StepRecord, target: Path) -> Path:
    """The files of a published step as a local folder. Raises InputError when the store has lost one of them."""
    try:
        return fetch_folder(
            store, layout.files_folder(record.key, record.attempt), record.files, target
        )
    except (NotFound, CorruptedObject) as error:
        raise InputError(
            f"step {record.index} ({record.key}) is published, but a file of it is missing or damaged: {error}. "
            f"Delete {layout.step_record(record.key)}, and the step is trained again"
        ) from error


@dataclass
class Journal:
    """What rank 0 writes while a step runs: curves, progress and checkpoints.

    When the lease is lost it stops the step, with a checkpoint for whoever goes on: that is how a job that is stopped stops it.
    """

    store: Store
    key: str
    attempt: str
    lease: Lease
    runtime: Runtime
    rows: list[CurveRow] = field(
        default_factory=list
    )  # of the piece of the curves that is being written
    progress: dict[str, Any] = field(default_factory=dict)
    flushed: float = 0.0  # when that was, by time.monotonic()
    checked: float = 0.0
    lost: LeaseLost | None = None

    def stage(self, name: str) -> None:
        """Say what the step is at."""
        if self.runtime.leads:
            self.progress["stage"] = name
            self.flush()

    def log(self, row: CurveRow) -> bool:
        """Note a row of the curves, to be written before long. True when the lease is lost: `save` is to come now."""
        self.rows.append(row)
        now = time.monotonic()
        with _going_on():
            if now - self.checked > LEASE_SECONDS:
                self.look()
                self.checked = now
            if now - self.flushed > FLUSH_SECONDS[is_local(self.store)]:
                self.flush()
        return self.lost is not None

    def save(self, folder: Path, iteration: int) -> None:
        """Keep a checkpoint, and remove the local copy. Raises LeaseLost."""
        with _going_on():
            save_checkpoint(self.store, self.key, self.attempt, folder, iteration)
            self.look()
        shutil.rmtree(folder)
        if self.lost:
            raise self.lost

    def look(self) -> None:
        """Note whether the lease is still there."""
        try:
            self.lease.check()
        except LeaseLost as error:
            self.lost = error

    def flush(self) -> None:
        """Write what is noted."""
        if self.rows:
            write_curves(self.store, self.key, self.attempt, self.rows)
            self.progress |= self.rows[-1]
        if len(self.rows) >= CURVE_ROWS:
            self.rows = []
        name = layout.progress(self.key, self.attempt)
        self.store.write(name, json.dumps(self.progress).encode())
        self.flushed = time.monotonic()


def broadcast_object(value: Any, runtime: Runtime) -> Any:
    """Rank 0's value, on every worker."""
    box = [value]
    if runtime.world_size > 1:
        distributed.broadcast_object_list(box)
    return box[0]


def gather_object(value: Any, runtime: Runtime) -> list[Any]:
    """Every worker's value by rank, on rank 0; empty elsewhere."""
    if runtime.world_size == 1:
        return [value]
    values = [None] * runtime.world_size if runtime.leads else None
    distributed.gather_object(value, values)
    return values or []


def device_name(device: torch.device) -> str:
    """`cpu`, or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@contextmanager
def _going_on() -> Iterator[None]:
    """Training outlives a store that does not answer for a while: the next row or checkpoint tries again."""
    try:
        yield
    except StoreError as error:
        log.warning("training goes on, but its progress is not kept: %s", error)


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    seconds[name] = time.monotonic() - start
