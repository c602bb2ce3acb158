"""Read and write the records of a store."""

import re
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
from training.config import Document, EvaluationConfig, InputError


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


def all_chains(store: Store) -> list[ChainRecord]:
    """Return every published chain, the oldest first. Raise InputError when there is none."""
    names = store.list(layout.CHAINS)
    records = [ChainRecord.model_validate_json(store.read(name)) for name in names]
    if not records:
        raise InputError(f"no chain is published in {store.uri}")
    return sorted(records, key=lambda record: record.created)


def find_step(store: Store, wanted: str) -> StepRecord:
    """Find a published step.

    Args:
        store: The store to look in.
        wanted: The step's key, the beginning of its key, or CHAIN:INDEX with a chain's name.

    Raises:
        InputError: There is no such step, or several keys begin like this.
    """
    chain, colon, index = wanted.rpartition(":")
    keys = [_step_of_chain(store, chain, index)] if colon else _keys_that_begin(store, wanted)
    if len(keys) > 1:
        raise InputError(
            f"{wanted!r} begins the keys {', '.join(keys)} in {store.uri}: give more of it"
        )
    record = find_record(store, keys[0]) if keys else None
    if record is None:
        raise InputError(
            f"no published step has the key {wanted!r}, or one that begins so, in {store.uri}"
        )
    return record


def _step_of_chain(store: Store, chain: str, index: str) -> str:
    """Return the key of a chain's step. Raise InputError when it has no such step."""
    steps = find_chain(store, chain).steps
    if not index.isdigit() or int(index) >= len(steps):
        raise InputError(f"chain {chain!r} has steps 0 to {len(steps) - 1}, and no step {index!r}")
    return steps[int(index)]


def _keys_that_begin(store: Store, beginning: str) -> list[str]:
    """Return the keys of the published steps that begin with these four to sixteen digits."""
    if not re.fullmatch("[0-9a-f]{4,16}", beginning):
        return []
    names = store.list(layout.step_folder(beginning))
    return sorted(layout.step_of(name) for name in names if layout.is_step_record(name))


def first_evaluation(store: Store, record: StepRecord) -> EvaluationRecord | None:
    """Return the evaluation that a step's chain asked for, which is the first of its attempt."""
    names = store.list(layout.evaluations_folder(record.key))
    found = []
    for name in filter(layout.is_evaluation_record, names):
        evaluation = EvaluationRecord.model_validate_json(store.read(name))
        if evaluation.attempt == record.attempt:
            found.append(evaluation)
    return min(found, key=lambda each: each.provenance.created, default=None)


def usual_view(store: Store, record: StepRecord) -> EvaluationConfig:
    """Return the view of images in which a step was first scored."""
    evaluation = first_evaluation(store, record)
    return evaluation.config if evaluation else EvaluationConfig()
