"""Record an analysis: the answers and the retrained decoders that it combines.

Answers and steps have records of their own, and this record names them. The page, the tables and
the run in MLflow can therefore be made again from the store alone.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from orchestrator.analysis.diagnosis import Analysis, analyse
from orchestrator.analysis.probe_record import ProbeRecord
from orchestrator.records import layout
from orchestrator.records.keys import KEY_LENGTH
from orchestrator.records.publish import publish_record
from orchestrator.records.repository import Repository
from orchestrator.records.results import ChainResult, StepResult, load_chains, load_step
from orchestrator.store.base import Store
from orchestrator.store.canonical import digest
from training.config import Document


class AnalysisRecord(Document):
    """An analysis of two steps of a chain, by the keys of everything that it rests on."""

    format: int = 1
    key: str
    chain: str
    before: int  # index of the earlier step
    after: int  # index of the later step
    answers: tuple[str, ...]  # keys of probe records in the store
    retrained: dict[str, tuple[str, str]]  # by part: keys of the step and of its evaluation
    created: str  # UTC, ISO 8601


def publish_analysis(
    store: Store,
    chain: ChainResult,
    steps: tuple[int, int],
    answers: Sequence[ProbeRecord],
    retrained: Mapping[str, StepResult],
) -> AnalysisRecord:
    """Write the record of an analysis, unless there is one.

    Args:
        store: The store that holds the chain.
        chain: The chain that holds both steps.
        steps: Indexes of the earlier and the later step.
        answers: Answers to probes of the two steps.
        retrained: Steps that retrained a part of the later model, by part.

    Returns:
        The record that was written first.
    """
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
    created = datetime.now(UTC).isoformat(timespec="seconds")
    record = AnalysisRecord(key=key, created=created, **content)
    return publish_record(store, layout.analysis_record(key), record)


def recorded_analyses(repository: Repository) -> list[AnalysisRecord]:
    """Return all analyses in the store, the oldest first."""
    records = repository.listed(repository.store.list(layout.ANALYSES), AnalysisRecord)
    return sorted(records, key=lambda record: (record.created, record.key))


def load_analysis(repository: Repository, record: AnalysisRecord) -> Analysis:
    """Return the analysis, made again from everything that its record names.

    Raises:
        NotFound: The store lacks a record that the analysis names.
        StoreError: The store does not answer.
        CorruptedObject: An object is not the one that its record names.
    """
    chain = repository.chain(record.chain)
    (result,) = load_chains(repository, [chain])
    groups = chain.chain["scenario"]["groups"]
    answers = repository.documents(record.answers, ProbeRecord)
    retrained = {
        part: load_step(repository, groups, step, evaluation)
        for part, (step, evaluation) in record.retrained.items()
    }
    earlier, later = result.steps[record.before], result.steps[record.after]
    return analyse(result, earlier, later, answers, retrained)
