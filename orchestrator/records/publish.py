"""Write the records of steps, evaluations and chains, each only once.

A record is written last and never replaced. Of two workers that publish the same thing, both get
the record of the one that was first.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypeVar

from orchestrator.records import layout
from orchestrator.records.damage import read_record
from orchestrator.records.keys import chain_key, evaluation_key
from orchestrator.records.provenance import person, provenance
from orchestrator.records.schema import (
    COUNTS,
    ChainRecord,
    DataSource,
    EvaluationRecord,
    File,
    Scoring,
    StepRecord,
    StepRequest,
)
from orchestrator.store.base import Store
from orchestrator.store.canonical import canonical_json, digest
from training.config import Document
from training.step_config import StepConfig

Record = TypeVar("Record", bound=Document)


def publish_record(store: Store, name: str, record: Record) -> Record:
    """Write a record unless the object exists. Return the record that was written first."""
    store.write(name, canonical_json(record), only_if_absent=True)
    return read_record(store, name, type(record))


def write_request(
    store: Store, key: str, title: str, step: StepConfig, index: int, parent: str | None
) -> None:
    """Write what is asked of a step, unless an earlier attempt did.

    The request describes the step to a person who looks at its folder before there is a record.
    """
    request = StepRequest(
        key=key,
        title=title,
        step=step,
        index=index,
        parent=parent,
        asked_by=person(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    store.write(layout.step_request(key), canonical_json(request), only_if_absent=True)


def publish_step(store: Store, record: StepRecord) -> StepRecord:
    """Write the record of a step. Return the record that was written first."""
    return publish_record(store, layout.step_record(record.key), record)


def publish_evaluation(
    store: Store,
    step: str,
    attempt: str,
    source: DataSource,
    scoring: Scoring,
    confusion: bytes,
    device: str,
) -> EvaluationRecord:
    """Write the confusion counts of an evaluation, then the record that names them by digest.

    Args:
        store: The store to write to.
        step: Key of the step that was scored.
        attempt: The step's attempt that was scored.
        source: The dataset that it was scored on.
        scoring: How it was scored.
        confusion: The counts, as Parquet.
        device: What the step was scored on, such as `cpu` or a GPU's name.

    Returns:
        The record that was written first, which may be another worker's.
    """
    key = evaluation_key(step, attempt, scoring.content, scoring.config, COUNTS)
    counts = layout.evaluation_counts(step, key)
    store.write(counts, confusion, only_if_absent=True)
    written = store.read(counts)
    record = EvaluationRecord(
        key=key,
        step=step,
        attempt=attempt,
        data=source,
        content=scoring.content,
        config=scoring.config,
        images=scoring.manifest.splits[scoring.split].rows,
        class_names=dict(enumerate(("background", *scoring.manifest.classes))),
        confusion=File(sha256=digest(written), bytes=len(written)),
        counts=COUNTS,
        provenance=provenance(device),
    )
    return publish_record(store, layout.evaluation_record(step, key), record)


def publish_chain(
    store: Store,
    chain: Document,
    records: Sequence[StepRecord],
    evaluations: Sequence[EvaluationRecord],
) -> ChainRecord:
    """Write the record of a chain whose steps are all published and scored.

    Return the record that was written first.
    """
    record = chain_record(chain, records, evaluations)
    return publish_record(store, layout.chain_record(record.key), record)


def chain_record(
    chain: Document, records: Sequence[StepRecord], evaluations: Sequence[EvaluationRecord]
) -> ChainRecord:
    """Return the record of a chain, or of its first steps, without writing it."""
    steps = tuple(record.key for record in records)
    scored = tuple(evaluation.key for evaluation in evaluations)
    return ChainRecord(
        key=chain_key(chain, steps, scored),
        chain=chain.model_dump(mode="json"),
        steps=steps,
        evaluations=scored,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
