"""The record of an analysis: which answers, and which decoders trained anew, were brought together about which steps.

Answers and steps have records of their own; this one names them, so that the page, the tables and MLflow can be made again
from the store alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from orchestrator.analysis.diagnosis import Analysis, analyse
from orchestrator.analysis.probes import ProbeRecord
from orchestrator.records import layout
from orchestrator.records.keys import KEY_LENGTH
from orchestrator.records.publish import publish_record
from orchestrator.records.repository import Repository
from orchestrator.records.results import ChainResult, StepResult, load_chains, load_step
from orchestrator.store.base import Store
from orchestrator.store.canonical import digest
from training.config import Document


class AnalysisRecord(Document):
    """An analysis of two steps of a chain, by the keys of all that it rests on."""

    format: int = 1
    key: str
    chain: str
    before: int
    after: int
    answers: tuple[str, ...]  # names of probe records in the store
    retrained: dict[str, tuple[str, str]]  # by part: keys of the step and of its evaluation
    created: str


def publish_analysis(
    store: Store,
    chain: ChainResult,
    steps: tuple[int, int],
    answers: Sequence[ProbeRecord],
    retrained: Mapping[str, StepResult],
) -> AnalysisRecord:
    """Write the record, unless the same analysis has one; returns the record of whoever was first."""
    content = {
        "chain": chain.record.key,
        "before": steps[0],
        "after": steps[1],
        "answers": tuple(answer.name for answer in answers),
        "retrained": {
            part: (step.record.key, step.evaluation.key) for part, step in retrained.items()
        },
    }
    key = digest(content)[:KEY_LENGTH]
    record = AnalysisRecord(
        key=key, created=datetime.now(UTC).isoformat(timespec="seconds"), **content
    )
    return publish_record(store, layout.analysis_record(key), record)


def recorded_analyses(store: Store) -> Iterator[AnalysisRecord]:
    """All analyses in the store, the oldest first."""
    records = Repository(store).documents(store.list(layout.ANALYSES), AnalysisRecord)
    return iter(sorted(records, key=lambda record: (record.created, record.key)))


def load_analysis(store: Store, record: AnalysisRecord) -> Analysis:
    """The analysis, made again from all that its record names. Raises NotFound, StoreError and CorruptedObject."""
    repository = Repository(store)
    chain = repository.chain(record.chain)
    (result,) = load_chains(repository, [chain])
    groups = chain.chain["scenario"]["groups"]
    return analyse(
        result,
        result.steps[record.before],
        result.steps[record.after],
        [ProbeRecord.model_validate_json(store.read(name)) for name in record.answers],
        {part: load_step(repository, groups, *keys) for part, keys in record.retrained.items()},
    )
