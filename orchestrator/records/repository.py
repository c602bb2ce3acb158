"""Read and write the records of a store."""

from collections.abc import Sequence
from datetime import UTC, datetime

from orchestrator.records import layout
from orchestrator.records.keys import chain_key, evaluation_key
from orchestrator.records.provenance import provenance
from orchestrator.records.schema import (
    ChainRecord,
    DataSource,
    EvaluationRecord,
    File,
    Scoring,
    StepRecord,
)
from orchestrator.store.base import NotFound, Store
from orchestrator.store.canonical import canonical_json, digest
from training.config import Document, InputError


def find_evaluation(store: Store, record: StepRecord, scoring: Scoring) -> EvaluationRecord | None:
    """The record of that evaluation of a step, None while there is none."""
    try:
        return EvaluationRecord.model_validate_json(
            store.read(
                layout.evaluation_record(record.key, _key(record.key, record.attempt, scoring))
            )
        )
    except NotFound:
        return None


def publish_evaluation(
    store: Store,
    step: str,
    attempt: str,
    source: DataSource,
    scoring: Scoring,
    confusion: bytes,
    device: str,
) -> EvaluationRecord:
    """Write the confusion counts (Parquet), then the record that proves them; returns the record of whoever was first."""
    split = scoring.manifest.splits[scoring.split]
    key = _key(step, attempt, scoring)
    counts_name = layout.evaluation_counts(step, key)
    store.write(counts_name, confusion, only_if_absent=True)
    confusion = store.read(counts_name)
    record = EvaluationRecord(
        key=key,
        step=step,
        attempt=attempt,
        data=source,
        content=split.content,
        config=scoring.config,
        images=split.rows,
        class_names=dict(enumerate(("background", *scoring.manifest.classes))),
        confusion=File(sha256=digest(confusion), bytes=len(confusion)),
        provenance=provenance(device),
    )
    name = layout.evaluation_record(step, key)
    store.write(name, canonical_json(record), only_if_absent=True)
    return EvaluationRecord.model_validate_json(store.read(name))


def _key(step: str, attempt: str, scoring: Scoring) -> str:
    content = scoring.manifest.splits[scoring.split].content
    return evaluation_key(step, attempt, content, scoring.config)


def find_chain(store: Store, wanted: str) -> ChainRecord:
    """The chain of that name (the latest, if there are several) or with that beginning of a key.

    Raises InputError naming the chains there are.
    """
    chains = [ChainRecord.model_validate_json(store.read(key)) for key in store.list(layout.CHAINS)]
    named = [chain for chain in chains if chain.chain["name"] == wanted]
    if named:
        return max(named, key=lambda chain: chain.created)
    keyed = [chain for chain in chains if len(wanted) >= 4 and chain.key.startswith(wanted)]
    if len(keyed) == 1:
        return keyed[0]
    if keyed:
        raise InputError(
            f"{wanted!r} begins the key of {len(keyed)} chains in {store.uri}: give more of it"
        )
    names = ", ".join(sorted({chain.chain["name"] for chain in chains})) or "none"
    raise InputError(
        f"no chain is named {wanted!r}, nor has a key that begins so, in {store.uri}; published: {names}"
    )


def chain_record(
    chain: Document, records: Sequence[StepRecord], evaluations: Sequence[EvaluationRecord]
) -> ChainRecord:
    """The record of a chain, or of its first steps."""
    steps, scored = (
        [record.key for record in records],
        [evaluation.key for evaluation in evaluations],
    )
    return ChainRecord(
        key=chain_key(chain, steps, scored),
        chain=chain.model_dump(mode="json"),
        steps=tuple(steps),
        evaluations=tuple(scored),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def find_record(store: Store, key: str) -> StepRecord | None:
    """The record of a step, None while it is not published."""
    try:
        return require_record(store, key)
    except NotFound:
        return None


def require_record(store: Store, key: str) -> StepRecord:
    """The record of a published step. Raises NotFound."""
    return StepRecord.model_validate_json(store.read(layout.step_record(key)))
