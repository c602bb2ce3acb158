"""Answer probes of published steps: read an answer's record, or compute the answer and write it.

Probes are independent of each other, so they run side by side, on workers that stay from one to
the next.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from orchestrator.analysis.probe_record import ProbeRecord, Question
from orchestrator.cluster import crew, workers
from orchestrator.datasets.catalog import load_index, resolve
from orchestrator.datasets.stored_split import open_stored_split
from orchestrator.execution.context import RunContext
from orchestrator.records.damage import read_record
from orchestrator.records.provenance import provenance
from orchestrator.records.publish import publish_record
from orchestrator.records.results import StepResult
from orchestrator.records.schema import StepFailed
from orchestrator.store.base import NotFound, Store
from orchestrator.store.cache import default_cache
from training.data.manifest import Manifest
from training.probes.questions import AnyProbe, Bias, Joint, Similarity, Stitching

if TYPE_CHECKING:
    from training.runtime import Runtime

JOINTS: tuple[Joint, ...] = ("identity", "least_squares", "trained")


@dataclass(frozen=True)
class _StepPair:
    """Two steps of a chain and the splits on which they are compared, as a task reads them."""

    store: Store
    earlier: StepResult
    later: StepResult
    manifest: Manifest
    train: str  # name of the split
    scored: str  # name of the split


def standard_probes(cuts: Sequence[str], images: int) -> tuple[AnyProbe, ...]:
    """Return all probes of a pair: each joint and the similarity at each cut, and the bias.

    Args:
        cuts: Names of the parts of the network after which it is cut.
        images: How many images each probe uses.
    """
    stitching = [Stitching(cut=cut, joint=joint, images=images) for cut in cuts for joint in JOINTS]
    similarities = [Similarity(cut=cut, images=images) for cut in cuts]
    return (*stitching, *similarities, Bias(images=images))


def ensure_answers(
    earlier: StepResult, later: StepResult, probes: Iterable[AnyProbe], context: RunContext
) -> list[ProbeRecord]:
    """Return the answer to each probe of two steps, in order; compute those that are missing.

    Args:
        earlier: The step whose classes may have been forgotten.
        later: A later step of the same chain.
        probes: The questions.
        context: The run's store, resources and console.

    Raises:
        StepFailed: A probe failed.
        StoreError: The store does not answer.
    """
    evaluation = later.evaluation
    _, manifest = resolve(context.store, evaluation.data.manifest)
    pair = _StepPair(context.store, earlier, later, manifest, "train", evaluation.data.split)
    questions = [_question(probe, pair) for probe in probes]
    answers: dict[str, ProbeRecord] = {}
    for question in questions:
        if record := _find_answer(context.store, question):
            answers[question.key] = record
    missing = [question for question in questions if question.key not in answers]
    if missing:
        context.notify(
            f"probing step {later.record.index} against step {earlier.record.index}: "
            f"{len(missing)} probes"
        )
        for record in _compute(missing, pair, context):
            answers[record.key] = record
            context.notify(f"  {describe_answer(record)}")
    return [answers[question.key] for question in questions]


def describe_answer(record: ProbeRecord) -> str:
    """Return an answer in one line."""
    probe = record.probe.model_dump(include={"probe", "cut", "joint"})
    numbers = [
        f"{name} {value:.3f}" for name, value in record.answer.items() if isinstance(value, float)
    ]
    return " ".join([*map(str, probe.values()), *numbers])


def _question(probe: AnyProbe, pair: _StepPair) -> Question:
    splits = pair.manifest.splits
    return Question(
        probe=probe,
        earlier=pair.earlier.record.key,
        earlier_attempt=pair.earlier.record.attempt,
        later=pair.later.record.key,
        later_attempt=pair.later.record.attempt,
        content=(splits[pair.train].content, splits[pair.scored].content),
        config=pair.later.evaluation.config.model_dump(),
    )


def _find_answer(store: Store, question: Question) -> ProbeRecord | None:
    try:
        return read_record(store, question.name, ProbeRecord)
    except NotFound:
        return None


def _compute(
    questions: Sequence[Question], pair: _StepPair, context: RunContext
) -> Iterator[ProbeRecord]:
    """Yield the records of the answers as they come."""
    resources = context.resources("probe")
    works = [partial(_answer, pair, question) for question in questions]
    try:
        yield from crew.run_side_by_side(works, resources, context.retries)
    except workers.WorkersFailed as error:
        raise StepFailed(f"step {pair.later.record.key} could not be probed: {error}") from error


def _answer(pair: _StepPair, question: Question, runtime: "Runtime") -> ProbeRecord:
    """Compute and record an answer on a worker; return the record that was written first."""
    from orchestrator.execution.worker import fetch_published
    from training.probes.measure import fixed_rows, measure, open_pair
    from training.runtime import device_name

    device = runtime.device
    began = time.monotonic()
    store = pair.store
    manifest = pair.manifest
    cache = default_cache()
    with TemporaryDirectory(prefix="stepchain-") as scratch:
        earlier = fetch_published(store, pair.earlier.record, Path(scratch, "earlier"))
        later = fetch_published(store, pair.later.record, Path(scratch, "later"))
        dataset = pair.later.evaluation.data.name
        index = load_index(store, manifest, pair.train, cache)
        groups = pair.earlier.record.step.task.groups
        rows = fixed_rows(index, groups, question.probe.images)
        train = open_stored_split(store, manifest, pair.train, cache, dataset=dataset, rows=rows)
        val = open_stored_split(store, manifest, pair.scored, cache, dataset=dataset)
        models = open_pair(earlier, later, train, val, pair.later.evaluation.config, device)
        answer = measure(question.probe, models)
    record = ProbeRecord(
        key=question.key,
        probe=question.probe,
        earlier=question.earlier,
        earlier_attempt=question.earlier_attempt,
        later=question.later,
        later_attempt=question.later_attempt,
        answer=answer,
        seconds=time.monotonic() - began,
        provenance=provenance(device_name(device)),
    )
    return publish_record(store, question.name, record)
