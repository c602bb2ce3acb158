"""Train a step on one worker: fetch its inputs, train, publish the files, and score them.

Every worker of a step calls `train` at the same time, and rank 0 writes for all. Inputs and results
are in the store, so a worker may run on any machine and be replaced at any moment. This module does
not know Ray, and one process alone can be all the workers.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow
import pyarrow.parquet
import torch.distributed as distributed

from orchestrator.datasets.layers import with_layers
from orchestrator.datasets.stored_split import open_stored_split
from orchestrator.execution.store_journal import StoreJournal
from orchestrator.planning.resolver import PlannedStep
from orchestrator.records import layout
from orchestrator.records.attempts import (
    Checkpoint,
    fetch_folder,
    publish_files,
    sound_checkpoint,
)
from orchestrator.records.schema import File, Scoring, StepRecord
from orchestrator.store.base import NotFound, Store
from orchestrator.store.cache import CorruptedObject, default_cache, open_object
from orchestrator.store.lease import Lease
from orchestrator.store.retries import Retries
from training.config import InputError, Precision
from training.data.manifest import Manifest
from training.data.shards import LocalSplit
from training.evaluate import evaluate
from training.fit import fit
from training.runtime import Runtime, device_name


@dataclass(frozen=True)
class Assignment:
    """Everything that a worker must know to train a step."""

    store: Store
    planned: PlannedStep
    attempt: str
    lease: Lease
    dataset: str  # its name
    manifest: Manifest
    parent: StepRecord | None
    scoring: Scoring
    retries: Retries
    again: bool = False  # whether the step is published, so that only its own checkpoints count

    @property
    def resumes_from(self) -> str | None:
        """Return the attempt whose checkpoints count; None: those of every attempt do."""
        return self.attempt if self.again else None


@dataclass(frozen=True)
class TrainingOutcome:
    """What rank 0 returns of an attempt."""

    files: dict[str, File]
    confusion: bytes  # Parquet
    resumed_from: int  # iterations that a checkpoint already had
    seconds: dict[str, float]  # of each stage
    train_parts: dict[str, float]  # of seconds["train"], what rank 0 waited
    device: str
    started: float  # Unix time at which the worker began


@dataclass(frozen=True)
class _Kept:
    """A local copy of the newest checkpoint."""

    iteration: int
    trained: bool
    folder: Path


@dataclass(frozen=True)
class _Inputs:
    """Local copies of everything else that a training reads."""

    data: LocalSplit
    parent: Path | None
    encoder_weights: Path | None


def train(assignment: Assignment, runtime: Runtime) -> TrainingOutcome:
    """Train, publish and score one step.

    Raises:
        LeaseLost: Another worker holds the step's lease, or the driver revoked it. A checkpoint is
            stored.
        StoreError: The store does not answer.
        Exception: What `training.fit.fit` raises.
    """
    started = time.time()
    store = assignment.store
    planned = assignment.planned
    published_folder = layout.files_folder(planned.key, assignment.attempt)
    journal = StoreJournal(
        store,
        planned.key,
        assignment.attempt,
        assignment.lease,
        assignment.retries,
        leads=runtime.leads,
    )
    with TemporaryDirectory(prefix="stepchain-") as scratch, journal:
        with journal.stage("fetch"):
            kept = _fetch_checkpoint(assignment, runtime, Path(scratch, "resume"))
        cache = default_cache()
        if kept and kept.trained:
            # The attempt that trained it was lost before its scores were there.
            result = kept.folder
            # The machine's cache has these files already, and those to be published must be read.
            cache = Path(scratch, "cache")
        else:
            result = _train(assignment, runtime, journal, Path(scratch), kept and kept.folder)
        with journal.stage("publish"):
            uploaded = None
            if runtime.leads:
                uploaded = publish_files(
                    store, planned.key, assignment.attempt, result, planned.iterations
                )
            files = broadcast_object(uploaded, runtime)
            copy = Path(scratch, "published")
            published = fetch_folder(store, published_folder, files, copy, cache)
        with journal.stage("evaluate"):
            precision = planned.step.optimization.precision
            check = journal.stop_if_lost
            confusion = score(store, published, assignment.scoring, runtime, precision, check)
    return TrainingOutcome(
        files,
        confusion,
        kept.iteration if kept else 0,
        {"train": 0.0} | journal.seconds,
        journal.waited,
        device_name(runtime.device),
        started,
    )


def _fetch_checkpoint(assignment: Assignment, runtime: Runtime, target: Path) -> _Kept | None:
    """Fetch the newest checkpoint, if there is one."""
    store = assignment.store
    found = None
    if runtime.leads:
        found = sound_checkpoint(store, assignment.planned.key, assignment.resumes_from)
    newest: Checkpoint | None = broadcast_object(found, runtime)
    if newest is None:
        return None
    folder = fetch_folder(store, newest.folder, newest.files, target)
    return _Kept(newest.iteration, newest.trained, folder)


def _train(
    assignment: Assignment,
    runtime: Runtime,
    journal: StoreJournal,
    scratch: Path,
    resume: Path | None,
) -> Path:
    """Fetch what the training reads, train, and return the folder of the files to publish."""
    with ExitStack() as open_files:
        with journal.stage("fetch"):
            inputs = _fetch_inputs(assignment, scratch, open_files)
        with journal.stage("train"):
            return fit(
                assignment.planned.step,
                inputs.data,
                assignment.planned.rows,
                runtime,
                parent=inputs.parent,
                encoder_weights=inputs.encoder_weights,
                folder=scratch,
                resume=resume,
                journal=journal,
            )


def _fetch_inputs(assignment: Assignment, scratch: Path, open_files: ExitStack) -> _Inputs:
    """Fetch the training data, the parent and the encoder's weights."""
    store = assignment.store
    planned = assignment.planned
    data = open_stored_split(
        store,
        assignment.manifest,
        "train",
        default_cache(),
        dataset=assignment.dataset,
        rows=planned.rows,
        masks=planned.step.task.supervision == "pixel",
    )
    data = with_layers(data, store, planned.layers, planned.rows, default_cache())
    parent = None
    if assignment.parent:
        parent = fetch_published(store, assignment.parent, scratch / "parent")
    encoder_weights = None
    if weights := planned.step.model.weights:
        opened = open_object(store, layout.encoder_weights(weights), weights, default_cache())
        encoder_weights = Path(open_files.enter_context(opened).name)
    return _Inputs(data, parent, encoder_weights)


def score(
    store: Store,
    model_folder: Path,
    scoring: Scoring,
    runtime: Runtime,
    precision: Precision,
    check: Callable[[], object] = lambda: None,
) -> bytes:
    """Return the confusion counts of every image of a split, by a step trained in `precision`.

    The workers share the images. Rank 0 returns all counts as Parquet, the others nothing. What
    `check`, called before each batch, raises ends the evaluation.
    """
    data = open_stored_split(
        store, scoring.manifest, scoring.split, default_cache(), dataset=scoring.dataset
    )
    table = evaluate(model_folder, data, scoring.config, runtime, precision=precision, check=check)
    tables = gather_object(table, runtime)
    if not runtime.leads:
        return b""
    # The order of the rows must not depend on the number of workers.
    order = [(name, "ascending") for name in ("image", "truth", "predicted")]
    table = pyarrow.concat_tables(tables).sort_by(order)
    file = BytesIO()
    pyarrow.parquet.write_table(table, file, compression="zstd")
    return file.getvalue()


def score_published(
    store: Store, record: StepRecord, scoring: Scoring, runtime: Runtime
) -> tuple[bytes, str]:
    """Score a published step, and return the confusion counts and the device."""
    with TemporaryDirectory(prefix="stepchain-") as scratch:
        folder = fetch_published(store, record, Path(scratch, "published"))
        precision = record.step.optimization.precision
        confusion = score(store, folder, scoring, runtime, precision)
        return confusion, device_name(runtime.device)


def fetch_published(store: Store, record: StepRecord, target: Path) -> Path:
    """Fetch the files of a published step into a local folder.

    Raise InputError when the store has lost one of them.
    """
    folder = layout.files_folder(record.key, record.attempt)
    try:
        return fetch_folder(store, folder, record.files, target)
    except (NotFound, CorruptedObject) as error:
        raise InputError(
            f"step {record.index} ({record.key}) is published, but a file of it is missing or "
            f"damaged: {error}. Delete {layout.step_record(record.key)}, and the step is "
            "trained again"
        ) from error


def broadcast_object(value: Any, runtime: Runtime) -> Any:
    """Return rank 0's value on every worker."""
    box = [value]
    if runtime.world_size > 1:
        distributed.broadcast_object_list(box)
    return box[0]


def gather_object(value: Any, runtime: Runtime) -> list[Any]:
    """Return every worker's value, ordered by rank, on rank 0; an empty list on the others."""
    if runtime.world_size == 1:
        return [value]
    values = [None] * runtime.world_size if runtime.leads else None
    distributed.gather_object(value, values)
    return values or []
