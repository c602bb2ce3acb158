"""Ask published steps what was forgotten between them: read the answer's record, or compute it on the cluster and write it.

An answer belongs to two attempts (the very files), a split's content, the way its images are viewed, and the probe's document;
these make its key. Probes are independent of each other, so they run side by side as Ray tasks.
"""

import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
import torch

from orchestrator.cluster.connection import connect
from orchestrator.datasets.catalog import load_index, resolve
from orchestrator.datasets.stored_split import open_stored_split
from orchestrator.execution.context import RunContext
from orchestrator.execution.worker import device_name, fetch_published
from orchestrator.records import layout
from orchestrator.records.keys import KEY_LENGTH
from orchestrator.records.provenance import provenance
from orchestrator.records.results import StepResult
from orchestrator.records.schema import Provenance
from orchestrator.store.base import NotFound, Store
from orchestrator.store.cache import default_cache
from orchestrator.store.canonical import canonical_json, digest
from training.config import Document
from training.data.manifest import Manifest
from training.probes.measure import (
    Answer,
    Bias,
    Probe,
    Similarity,
    Stitching,
    fixed_rows,
    measure,
    open_pair,
)


class ProbeRecord(Document):
    """The answer to a probe."""

    format: int = 1
    key: str
    probe: Probe
    earlier: str  # step key
    earlier_attempt: str
    later: str
    later_attempt: str
    answer: Answer
    seconds: float
    provenance: Provenance

    @property
    def name(self) -> str:
        """Key of the record in the store."""
        return layout.probe_record(self.later, self.key)


class Question(Document):
    """A probe of two published steps."""

    probe: Probe
    earlier: str
    earlier_attempt: str
    later: str
    later_attempt: str
    content: tuple[str, str]  # of the training split and of the one that is scored
    config: dict[str, Any]  # how images are viewed

    @property
    def key(self) -> str:
        return digest(self)[:KEY_LENGTH]

    @property
    def name(self) -> str:
        """Key of the answer's record in the store."""
        return layout.probe_record(self.later, self.key)


def standard_probes(cuts: Sequence[str], images: int) -> tuple[Stitching | Similarity | Bias, ...]:
    """All probes of a pair: each joint and the similarity at each cut, and the bias."""
    stitching = [
        Stitching(cut=cut, joint=joint, images=images)
        for cut in cuts
        for joint in ("identity", "least_squares", "trained")
    ]
    return (*stitching, *(Similarity(cut=cut, images=images) for cut in cuts), Bias(images=images))


def ensure_answers(
    earlier: StepResult,
    later: StepResult,
    probes: Iterable[Stitching | Similarity | Bias],
    place: RunContext,
) -> list[ProbeRecord]:
    """The answer to each probe of two steps of a chain, in order; those that are not there are computed.

    Raises StoreError and what a probe raises.
    """
    evaluation = later.evaluation
    _, manifest = resolve(place.store, evaluation.data.manifest)
    splits = ("train", evaluation.data.split)
    pair = {
        "earlier": earlier.record.key,
        "earlier_attempt": earlier.record.attempt,
        "later": later.record.key,
        "later_attempt": later.record.attempt,
        "content": tuple(manifest.splits[split].content for split in splits),
        "config": evaluation.config.model_dump(),
    }
    questions = [Question(probe=probe, **pair) for probe in probes]
    answers = {question.key: _find(place.store, question) for question in questions}
    missing = [question for question in questions if answers[question.key] is None]
    if missing:
        place.say(
            f"probing step {later.record.index} against step {earlier.record.index}: {len(missing)} probes"
        )
        for record in _compute(missing, earlier, later, manifest, splits, place):
            answers[record.key] = record
            place.say(f"  {describe(record)}")
    return [answer for question in questions if (answer := answers[question.key])]


def describe(record: ProbeRecord) -> str:
    """An answer in a line."""
    what = record.probe.model_dump(include={"probe", "cut", "joint"})
    told = {name: value for name, value in record.answer.items() if isinstance(value, float)}
    return " ".join(
        [*map(str, what.values()), *(f"{name} {value:.3f}" for name, value in told.items())]
    )


def _find(store: Store, question: Question) -> ProbeRecord | None:
    try:
        return ProbeRecord.model_validate_json(store.read(question.name))
    except NotFound:
        return None


def _compute(
    questions: Sequence[Question],
    earlier: StepResult,
    later: StepResult,
    manifest: Manifest,
    splits: tuple[str, str],
    place: RunContext,
) -> Iterable[ProbeRecord]:
    """Records as they come."""
    connect()
    resources = place.resources()
    task: Any = ray.remote(
        num_cpus=resources.cpus_per_worker, num_gpus=min(1, resources.gpus_per_worker)
    )(_answer)
    work = partial(
        task.remote, place.store, earlier, later, manifest, splits, resources.cpus_per_worker
    )
    waiting = [work(question) for question in questions]
    while waiting:
        (done, *_), waiting = ray.wait(waiting)
        yield ray.get(done)


def _answer(
    store: Store,
    earlier: StepResult,
    later: StepResult,
    manifest: Manifest,
    splits: tuple[str, str],
    threads: int,
    question: Question,
) -> ProbeRecord:
    """What a task does: fetch, measure, write the record; whoever was first counts."""
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    begun = time.monotonic()
    with TemporaryDirectory(prefix="stepchain-") as scratch:
        first = fetch_published(store, earlier.record, Path(scratch, "earlier"))
        second = fetch_published(store, later.record, Path(scratch, "later"))
        name, cache = later.evaluation.data.name, default_cache()
        groups = earlier.record.step.task.groups
        rows = fixed_rows(
            load_index(store, manifest, splits[0], cache), groups, question.probe.images
        )
        train = open_stored_split(store, manifest, splits[0], cache, dataset=name, rows=rows)
        val = open_stored_split(store, manifest, splits[1], cache, dataset=name)
        pair = open_pair(first, second, train, val, later.evaluation.config, device)
        answer = measure(question.probe, pair)
    record = ProbeRecord(
        key=question.key,
        probe=question.probe,
        earlier=question.earlier,
        earlier_attempt=question.earlier_attempt,
        later=question.later,
        later_attempt=question.later_attempt,
        answer=answer,
        seconds=time.monotonic() - begun,
        provenance=provenance(device_name(device)),
    )
    store.write(question.name, canonical_json(record), only_if_absent=True)
    return ProbeRecord.model_validate_json(store.read(question.name))
