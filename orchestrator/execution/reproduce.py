"""Train a published step again on purpose, and compare the two attempts.

The other attempt starts from nothing: it resumes from no checkpoint but its own. Its files stay in
its own folder, and `orchestrator.records.reproduction` says what it found.
"""

import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from orchestrator.cluster.give import step_kind
from orchestrator.execution.attempt import assign, run_attempt
from orchestrator.execution.context import RunContext
from orchestrator.execution.evaluate import ensure_evaluation
from orchestrator.execution.weight_difference import compare_weights
from orchestrator.execution.worker import fetch_published
from orchestrator.planning.chain import Chain
from orchestrator.planning.planner import SPLIT, PlannedChain, Planner
from orchestrator.planning.resolver import PlannedStep
from orchestrator.records import layout
from orchestrator.records.attempts import new_attempt
from orchestrator.records.provenance import provenance
from orchestrator.records.repository import Repository, read_counts
from orchestrator.records.reproduction import (
    Reproduction,
    WeightDifference,
    publish_reproduction,
)
from orchestrator.records.results import load_step
from orchestrator.records.schema import StepRecord
from orchestrator.store.base import Store
from orchestrator.store.lease import Lease
from training.config import InputError
from training.metrics import Confusion, score


def plan_again(record: StepRecord, repository: Repository) -> tuple[PlannedStep, PlannedChain]:
    """Return a published step as a plan holds it, and a published chain that has it.

    Raises:
        InputError: Today's code cannot train the step, or no chain of the store has it.
        StoreError: The store does not answer.
    """
    if record.adoption:
        raise InputError(f"step {record.key} was adopted, not trained, so there is nothing to do")
    method = record.step.method
    if method.with_current_recipe() != method:
        raise InputError(
            f"step {record.key} was trained by recipe {method.recipe} of {method.name}, and this "
            f"code trains recipe {method.current_recipe}: take the version of the code that "
            "trained it (its record's provenance)"
        )
    for chain in repository.chains():
        if record.key in chain.steps:
            planner = Planner(repository.store, recorded=True)
            plan = planner.plan(Chain.model_validate(chain.chain))
            for planned in plan.steps:
                if planned.key == record.key:
                    return planned, plan
    raise InputError(
        f"no published chain of {repository.store.uri} has step {record.key} with today's data: "
        "finish a chain that has it, whose record says which images it is trained on"
    )


def reproduce(
    planned: PlannedStep, plan: PlannedChain, record: StepRecord, context: RunContext
) -> Reproduction:
    """Train and score a published step again, compare, and publish what was found.

    Args:
        planned: The step.
        plan: A chain that contains it.
        record: Of the published attempt.
        context: Of the run.

    Raises:
        InputError: The step's parent was published again since.
        StepFailed: The workers failed.
    """
    store = context.store
    repository = Repository(store)
    parent = _parent(record, repository)
    evaluation = ensure_evaluation(record, plan.source(SPLIT), plan.scoring, context)
    groups = plan.chain.scenario.groups
    published = load_step(repository, groups, record.key, evaluation.key, with_curves=False)
    attempt = new_attempt()
    # Nobody else knows the attempt, so its lease is free. It lets a signal stop the workers.
    lease = Lease(store, layout.attempt_lease(record.key, attempt), context.owner)
    lease.acquire()
    # The tracker shows published steps.
    context = replace(context, tracker=None)
    resources = context.resources(step_kind(record.index))
    began = time.time()
    with lease.held():
        assignment = assign(planned, plan, context, attempt, lease, parent, again=True)
        outcome, restarts, without_room = run_attempt(assignment, resources, plan, context)
    again = record.model_copy(update={"attempt": attempt, "files": outcome.files})
    counts = read_counts(outcome.confusion)
    convention = context.convention
    found = Reproduction(
        step=record.key,
        published_attempt=record.attempt,
        attempt=attempt,
        files=outcome.files,
        weights=_compare(store, record, again),
        same_counts=_same_counts(published.confusion, counts),
        published_scores=published.scores(convention),
        scores=score(counts, published.groups, convention),
        convention=convention.name,
        published_device=record.provenance.device,
        seconds={
            "wait": without_room,
            "start": outcome.started - began - without_room,
            **outcome.seconds,
        },
        resources={
            **resources.model_dump(),
            "restarts": restarts,
            "resumed_from": outcome.resumed_from,
        },
        provenance=provenance(outcome.device),
    )
    found = publish_reproduction(store, found)
    # Another attempt at the step may be training.
    store.delete(layout.checkpoints_folder(record.key, attempt))
    return found


def _parent(record: StepRecord, repository: Repository) -> StepRecord | None:
    if record.parent is None:
        return None
    parent = repository.step(record.parent)
    if parent.attempt != record.parent_attempt:
        raise InputError(
            f"step {record.key} was trained from attempt {record.parent_attempt} of its parent "
            f"{parent.key}, and the published one is {parent.attempt} by now: both would start "
            "from other weights"
        )
    return parent


def _compare(store: Store, published: StepRecord, again: StepRecord) -> WeightDifference:
    """Fetch the files of both attempts and compare their weights."""
    with TemporaryDirectory(prefix="stepchain-") as scratch:
        folders = Path(scratch, "published"), Path(scratch, "again")
        for record, folder in zip((published, again), folders, strict=True):
            fetch_published(store, record, folder)
        return compare_weights(*folders)


def _same_counts(first: Confusion, second: Confusion) -> bool:
    """Return whether both attempts have the same counts; both are sorted."""
    return all(np.array_equal(*pair) for pair in zip(first, second, strict=True))
