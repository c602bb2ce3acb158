"""Look up which steps of a campaign are published, running or still to be trained.

The look-up changes nothing. Whether a lease has run out is judged by its holder's clock. That is
good enough to inform people, but never to take over the lease.
"""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from orchestrator.planning.step_tree import Node, StepTree
from orchestrator.records import layout
from orchestrator.records.attempts import attempt_names
from orchestrator.records.listing import list_published
from orchestrator.records.published_files import (
    NOTHING,
    NamedFile,
    counts_of,
    files_of_step,
    is_scored,
    missing_file,
)
from orchestrator.records.repository import Repository
from orchestrator.records.schema import StepRecord
from orchestrator.store.base import READERS, NotFound, Store
from orchestrator.store.lease import LeaseState, read_lease


class StepState(StrEnum):
    """The state of a step, in the store or in a running campaign. The values are for people."""

    PUBLISHED = "published"
    """The record and all evaluations exist. In a run's outcome: this run trained the step."""
    REUSED = "reused"
    """Another run published the step, before this run or during it."""
    TO_SCORE = "to score"
    """The step is trained, but an evaluation is missing."""
    RUNNING = "running"
    """A worker holds the step's lease. In a run's outcome: this run has started a trial."""
    FAILED = "failed"
    """The newest attempt ended with an error, and no attempt runs."""
    INTERRUPTED = "interrupted"
    """The newest attempt ended without an error and without a record."""
    TO_TRAIN = "to train"
    """No attempt runs, and the parent is published or not needed."""
    WAITING = "waiting"
    """The parent is not published yet."""
    NOT_RUN = "not run"
    """This run cannot train the step: an earlier one failed, or the budget is spent."""
    STOPPED = "stopped"
    """The chain is too far behind the best one, and this run does not continue it."""

    @property
    def exists(self) -> bool:
        """Return whether the step and its evaluations are in the store."""
        return self in (StepState.PUBLISHED, StepState.REUSED)


@dataclass(frozen=True)
class AttemptDetails:
    """How far the newest attempt at a step came."""

    attempt: str
    progress: dict[str, Any]  # as the attempt wrote it
    error: str | None = None  # traceback of an attempt that failed


@dataclass(frozen=True)
class StoredStep:
    """The state of a step in the store."""

    state: StepState
    record: StepRecord | None = None  # of a step that is published or to be scored
    holder: LeaseState | None = None  # of a step that is running
    details: AttemptDetails | None = None  # only if the look-up was asked for details
    problem: str | None = None  # of a step that is published, and whose files are not there


def look_up_steps(tree: StepTree, store: Store, *, details: bool = False) -> dict[str, StoredStep]:
    """Return the state of every step of the tree by key, parents first.

    The store is asked only for steps whose parent is published.

    Args:
        tree: The steps.
        store: Where their records are.
        details: Also read how far the newest attempt at a step came, and why it failed. Only then
            can FAILED and INTERRUPTED be distinguished from TO_TRAIN.

    Raises:
        StoreError: The store does not answer.
    """
    look_up = _look_up_details if details else look_up_step
    repository = Repository(store)
    listed = list_published(repository, len(tree.nodes))
    found: dict[str, StoredStep] = {}
    generation = [node for node in tree.nodes.values() if node.parent is None]
    with ThreadPoolExecutor(READERS) as readers:
        while generation:
            stored = readers.map(lambda node: look_up(node, repository, listed), generation)
            found |= {node.key: step for node, step in zip(generation, stored, strict=True)}
            trained = [node for node in generation if found[node.key].record]
            generation = [tree.nodes[child] for node in trained for child in node.children]
    return {key: found.get(key, StoredStep(StepState.WAITING)) for key in tree.nodes}


def look_up_step(
    node: Node, repository: Repository, listed: Mapping[str, int] = NOTHING
) -> StoredStep:
    """Return the state of a step whose parent is published or not needed.

    `listed`: what `list_published` returned. What it shows is not asked for again.
    """
    record = repository.find_step(node.key)
    if record:
        problem = missing_file(repository.store, record, listed)
        if problem:
            return StoredStep(StepState.TO_TRAIN, problem=problem)
        scored = all(is_scored(repository, record, each, listed) for _, each in node.scorings)
        return StoredStep(StepState.PUBLISHED if scored else StepState.TO_SCORE, record)
    holder = read_lease(repository.store, layout.step_lease(node.key))
    if holder is None or holder.expired:
        return StoredStep(StepState.TO_TRAIN)
    return StoredStep(StepState.RUNNING, holder=holder)


def published_files(
    tree: StepTree, stored: Mapping[str, StoredStep], repository: Repository
) -> list[NamedFile]:
    """Return the files of the tree's published steps and of their evaluations' counts."""
    found: list[NamedFile] = []
    for key, step in stored.items():
        if step.record is None:
            continue
        found += files_of_step(step.record)
        for _, scoring in tree.nodes[key].scorings:
            evaluation = repository.find_evaluation(step.record, scoring)
            if evaluation is not None:
                found.append(counts_of(evaluation))
    return found


def _look_up_details(node: Node, repository: Repository, listed: Mapping[str, int]) -> StoredStep:
    """Return the state of a step with the details of its newest attempt."""
    store = repository.store
    stored = look_up_step(node, repository, listed)
    attempts = [] if stored.record else attempt_names(store, node.key)
    if not attempts:
        return stored
    attempt = attempts[-1]
    progress = _read_progress(store, node.key, attempt)
    if stored.state == StepState.RUNNING:
        details = AttemptDetails(attempt, progress)
        return StoredStep(StepState.RUNNING, holder=stored.holder, details=details)
    error = _read_error(store, node.key, attempt)
    state = StepState.INTERRUPTED if error is None else StepState.FAILED
    return StoredStep(state, details=AttemptDetails(attempt, progress, error))


def _read_progress(store: Store, step: str, attempt: str) -> dict[str, Any]:
    try:
        return json.loads(store.read(layout.progress(step, attempt)))
    except NotFound:
        return {"stage": "start"}


def _read_error(store: Store, step: str, attempt: str) -> str | None:
    """Return the traceback of an attempt that failed, None for any other attempt."""
    try:
        return store.read(layout.error(step, attempt)).decode(errors="replace")
    except NotFound:
        return None
