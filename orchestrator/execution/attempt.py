"""Run one attempt at a step: train and score it on the cluster, and publish its record.

An attempt resumes from the newest checkpoint of any attempt. When its workers are lost, they are
started again.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial

from orchestrator.cluster import workers
from orchestrator.cluster.resources import Resources
from orchestrator.cluster.waiting import Waiting
from orchestrator.execution.context import RunContext
from orchestrator.execution.messages import AttemptStarted, WorkersStarted
from orchestrator.execution.progress_display import follow_step
from orchestrator.execution.worker import Assignment, TrainingOutcome, train
from orchestrator.planning.planner import SPLIT, PlannedChain
from orchestrator.planning.resolver import PlannedStep
from orchestrator.records import layout
from orchestrator.records.attempts import (
    count_attempts,
    delete_checkpoints,
    new_attempt,
    newest_checkpoint,
)
from orchestrator.records.provenance import provenance
from orchestrator.records.publish import publish_evaluation, publish_step, write_request
from orchestrator.records.schema import StepFailed, StepHasNoRoom, StepRecord
from orchestrator.store.base import Store, StoreError
from orchestrator.store.lease import Lease, LeaseLost, Stopped


@dataclass(frozen=True)
class Ready:
    """Workers that were waited for before the lease was taken."""

    resources: Resources
    asked: float  # the time.monotonic() at which the step was asked for
    starting: float  # seconds that they took to start, without those in which there was no room


def produce_step(
    planned: PlannedStep,
    plan: PlannedChain,
    context: RunContext,
    parent: StepRecord | None,
    lease: Lease,
    ready: Ready,
) -> StepRecord:
    """Train, score and publish a step in a new attempt.

    Args:
        planned: The step.
        plan: A chain that contains the step.
        context: Of the run.
        parent: The record of the parent step.
        lease: Held by this process.
        ready: The workers that were waited for.

    Returns:
        The published record. If another attempt published one first, that one.

    Raises:
        LeaseLost: Another process holds the lease now.
        StepFailed: The workers failed.
    """
    waited = time.monotonic() - ready.asked - ready.starting
    began = time.time()
    store = context.store
    attempt = new_attempt()
    if context.on_message:
        context.on_message(AttemptStarted(attempt))
    write_request(store, planned.key, planned.title, planned.step, planned.index, planned.parent)
    assignment = assign(planned, plan, context, attempt, lease, parent)
    outcome, restarts, without_room = run_attempt(assignment, ready.resources, plan, context)
    stopped = time.time() - outcome.started - sum(outcome.seconds.values())
    publish_evaluation(
        store,
        planned.key,
        attempt,
        plan.source(SPLIT),
        plan.scoring,
        outcome.confusion,
        outcome.device,
    )
    images = (planned.iterations - outcome.resumed_from) * planned.step.optimization.batch
    record = StepRecord(
        key=planned.key,
        step=planned.step,
        index=planned.index,
        parent=planned.parent,
        parent_attempt=parent.attempt if parent else None,
        attempt=attempt,
        files=outcome.files,
        class_names=planned.class_names,
        data=plan.source("train"),
        iterations=planned.iterations,
        seconds={
            "wait": waited + without_room,
            "start": ready.starting + outcome.started - began - without_room,
            **outcome.seconds,
            "stop": stopped,
        },
        train_parts=outcome.train_parts,
        images_per_second=images / outcome.seconds["train"] if images else None,
        resources={
            **ready.resources.model_dump(),
            "attempts": count_attempts(store, planned.key),
            "restarts": restarts,
            "resumed_from": outcome.resumed_from,
        },
        provenance=provenance(outcome.device),
    )
    # If another attempt published first, its record counts.
    published = publish_step(store, record)
    delete_checkpoints(store, planned.key)
    return published


def assign(
    planned: PlannedStep,
    plan: PlannedChain,
    context: RunContext,
    attempt: str,
    lease: Lease,
    parent: StepRecord | None,
    again: bool = False,
) -> Assignment:
    """Return what a worker must know to train a step of a chain in an attempt."""
    return Assignment(
        context.store,
        planned,
        attempt,
        lease,
        plan.chain.scenario.dataset,
        plan.manifest,
        parent,
        plan.scoring,
        context.retries,
        again,
    )


def run_attempt(
    assignment: Assignment, resources: Resources, plan: PlannedChain, context: RunContext
) -> tuple[TrainingOutcome, int, float]:
    """Run an attempt while people and the tracker watch.

    A failure is written to the attempt's folder.

    Returns:
        The outcome, how often workers were lost, and the seconds in which there was no room.

    Raises:
        LeaseLost: Another process holds the lease now.
        StepFailed: The workers failed.
    """
    planned = assignment.planned
    tracker = context.tracker
    if tracker and context.chain_run:
        tracker.step_started(planned, plan.source("train"), context.chain_run)
    following = nullcontext()
    if context.follows_steps:
        on_rows = partial(tracker.curves, planned.key) if tracker else lambda rows: None
        following = follow_step(
            context.store,
            planned,
            assignment.attempt,
            context.console,
            on_rows,
            context.retries,
        )
    try:
        with following:
            return _run_with_restarts(assignment, resources, context)
    except workers.WorkersFailed as error:
        if isinstance(error.reason, LeaseLost):
            raise error.reason from error
        failed = write_failure(planned, assignment.attempt, error, context.store)
        if tracker:
            tracker.step_failed(planned.key)
        raise failed from error


def write_failure(
    planned: PlannedStep, attempt: str, error: workers.WorkersFailed, store: Store
) -> StepFailed:
    """Write the details of a failure to the attempt's folder, and return what to raise."""
    name = layout.error(planned.key, attempt)
    store.write(name, error.details.encode())
    failed = StepHasNoRoom if isinstance(error.reason, workers.NoRoom) else StepFailed
    return failed(f"{planned.title} failed: {error} (details: {store.uri}/{name})")


def _run_with_restarts(
    assignment: Assignment, resources: Resources, context: RunContext
) -> tuple[TrainingOutcome, int, float]:
    """Run the workers, and run them again from the newest checkpoint whenever they are lost.

    Return the outcome, the number of restarts, and the seconds in which there was no room.

    Gives up after `retries.restarts` losses without a new checkpoint in between, because the cause
    is then unlikely to go away.
    """
    key = assignment.planned.key
    title = assignment.planned.title
    waiting = Waiting(
        context.notify,
        _lease_check(assignment.lease, context.retries.lease_check_seconds),
        partial(_tell_start, context),
    )
    restarts = 0
    without_progress = 0
    reached = 0
    while True:
        try:
            outcome = workers.run(
                partial(train, assignment),
                resources,
                partial(_ask_to_end, assignment, context),
                context.retries,
                waiting,
            )
            return outcome, restarts, waiting.seconds
        except workers.WorkersFailed as error:
            if error.reason is not None:
                raise
            newest = newest_checkpoint(context.store, key, assignment.resumes_from)
            iteration = newest.iteration if newest else 0
            without_progress = 0 if iteration > reached else without_progress + 1
            if without_progress > context.retries.restarts:
                raise
            reached = iteration
            restarts += 1
            context.notify(f"{title}: {error}; going on from iteration {iteration}")


def _tell_start(context: RunContext) -> None:
    if context.on_message:
        context.on_message(WorkersStarted())


def _lease_check(lease: Lease, seconds: float) -> Callable[[], None]:
    """Return a function that raises LeaseLost if the lease is lost. It asks every few seconds."""
    look = now_and_then(lease.check, seconds)

    def check() -> None:
        if lease.seized:
            raise Stopped(f"{lease.key} was taken back, because this job is being stopped")
        look()

    return check


def now_and_then(look: Callable[[], None], seconds: float) -> Callable[[], None]:
    """Return a function that calls `look` if that is so many seconds ago.

    A store that is away for a while stops nothing.
    """
    last = time.monotonic()

    def look_if_due() -> None:
        nonlocal last
        if time.monotonic() - last > seconds:
            last = time.monotonic()
            with suppress(StoreError):
                look()

    return look_if_due


def _ask_to_end(assignment: Assignment, context: RunContext) -> None:
    """Revoke the workers' lease, so that they store a checkpoint and exit."""
    title = assignment.planned.title
    context.notify(f"{title}: keeping a checkpoint, then stopping")
    try:
        assignment.lease.seize()
    except StoreError as error:
        context.notify(f"{title}: stopping without a checkpoint: {error}")
