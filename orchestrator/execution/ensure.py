"""Make sure that a step or a chain exists: read its record, or make what is missing.

The record is written last. If it exists, this takes one read and one list of the files that it
names, and no cluster is started. Otherwise a job waits for workers, takes the step's lease and runs
an attempt of its own (`orchestrator.execution.attempt`). The lease is advisory: if two jobs train
the same step, both finish with a valid result. The first record that is written counts, and both
jobs return it.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from orchestrator.cluster import workers
from orchestrator.cluster.give import step_kind
from orchestrator.cluster.resources import check_steps
from orchestrator.cluster.waiting import Waiting
from orchestrator.execution.attempt import Ready, now_and_then, produce_step, write_failure
from orchestrator.execution.context import RunContext
from orchestrator.execution.evaluate import ensure_evaluation
from orchestrator.execution.messages import WaitingForLease, WaitingForWorkers
from orchestrator.execution.progress_display import show_progress
from orchestrator.execution.scoreboard import Reporter, Scoreboard
from orchestrator.planning.planner import SPLIT, PlannedChain
from orchestrator.planning.resolver import PlannedStep
from orchestrator.records import layout
from orchestrator.records.attempts import new_attempt
from orchestrator.records.publish import publish_chain
from orchestrator.records.published_files import problem_of_files
from orchestrator.records.repository import Repository
from orchestrator.records.results import ChainResult, load_chains
from orchestrator.records.schema import EvaluationRecord, StepRecord
from orchestrator.store.lease import Lease, LeaseLost, Stopped
from training.config import InputError


def ensure_chain(plan: PlannedChain, context: RunContext) -> ChainResult:
    """Publish every step of a chain with its evaluation, then the chain's record.

    Returns:
        The whole chain, read back from the store.

    Raises:
        StepFailed: A step could not be trained or scored.
        StoreError: The store does not answer.
        InputError: The resources do not fit, or files of a published step are gone.
    """
    check_steps(context.request, plan.batches)
    scoreboard = Scoreboard(Repository(context.store), context.convention)
    reporter = Reporter(context.tracker, scoreboard)
    context = replace(context, chain_run=reporter.chain_run(plan))
    records: list[StepRecord] = []
    evaluations: list[EvaluationRecord] = []
    for planned in plan.steps:
        record = ensure_step(planned, plan, context, records[-1] if records else None)
        records.append(record)
        evaluations.append(ensure_evaluation(record, plan.source(SPLIT), plan.scoring, context))
        reporter.step_published(plan, planned.key)
        reporter.chain_progressed(plan, [each.key for each in records])
    chain = publish_chain(context.store, plan.chain, records, evaluations)
    (result,) = load_chains(scoreboard.repository, [chain])
    reporter.chain_published(plan, result)
    return result


def ensure_step(
    planned: PlannedStep, plan: PlannedChain, context: RunContext, parent: StepRecord | None
) -> StepRecord:
    """Return the step's record.

    Train the step unless it is published, or wait for the job that trains it.

    Raises:
        StepFailed: The workers failed. The attempt's folder says why, and the next attempt resumes
            from its checkpoints.
        InputError: The step is published, and files of it are gone.
        Stopped: The job's driver took the lease back.
    """
    asked = time.monotonic()
    repository = Repository(context.store)
    told = False
    period = context.retries.lease_seconds
    interval = min(context.retries.heartbeat_seconds, period / 5)
    name = layout.step_lease(planned.key)
    lease = Lease(context.store, name, context.owner, period=period, interval=interval)
    while (record := repository.find_step(planned.key)) is None:
        ready = None
        if lease.is_free():
            told = False
            ready = _await_workers(planned, context, asked)
            if ready is None:
                continue  # another job published the step
        if ready is None or not lease.acquire():
            if lease.holder and not told:
                _tell_holder(planned, context, lease.holder.owner)
                told = True
            time.sleep(context.retries.lease_poll_seconds)
            continue
        try:
            with lease.held():
                # Another holder of the lease may have published the step in the meantime.
                record = repository.find_step(planned.key)
                return record or produce_step(planned, plan, context, parent, lease, ready)
        except Stopped:
            raise
        except LeaseLost as error:
            context.notify(f"{planned.title}: {error}")
            told = False
            # Workers that still hold a copy of the old one must not take it for valid again.
            lease = Lease(context.store, name, context.owner, period=period, interval=interval)
    if problem := problem_of_files(context.store, record):
        raise InputError(problem)
    return record


class _Published(Exception):
    """Another job published the step, so this one needs no workers for it."""


def _await_workers(planned: PlannedStep, context: RunContext, asked: float) -> Ready | None:
    """Wait for the step's workers. Return None if another job publishes the step meanwhile.

    This comes before the lease, so that a job without room keeps no step from a job that has some.

    Args:
        planned: The step.
        context: Of the run.
        asked: The time.monotonic() at which the step was asked for.

    Raises:
        StepFailed: No workers started. As StepHasNoRoom: no machine came that can hold them.
    """
    repository = Repository(context.store)
    resources = context.resources(step_kind(planned.index))
    began = time.monotonic()
    told = False

    def stop_if_published() -> None:
        if repository.find_step(planned.key):
            raise _Published

    look = now_and_then(stop_if_published, context.retries.lease_poll_seconds)

    def check() -> None:
        nonlocal told
        if context.on_message and not told:
            context.on_message(WaitingForWorkers())
        told = True
        look()

    waiting = Waiting(context.notify, check)
    try:
        with _shown_as_starting(planned, context):
            workers.await_team(resources, context.retries, waiting)
    except _Published:
        return None
    except workers.WorkersFailed as error:
        raise write_failure(planned, new_attempt(), error, context.store) from error
    return Ready(resources, asked, time.monotonic() - began - waiting.seconds)


@contextmanager
def _shown_as_starting(planned: PlannedStep, context: RunContext) -> Iterator[None]:
    if not context.follows_steps:
        yield
        return
    with show_progress(context.console, planned.title, planned.iterations) as update:
        update(0, "start", at_once=True)
        yield


def _tell_holder(planned: PlannedStep, context: RunContext, owner: str) -> None:
    """Say that another job trains the step."""
    context.notify(f"{planned.title}: waiting for {owner}, who holds its lease")
    if context.on_message:
        context.on_message(WaitingForLease(owner))
