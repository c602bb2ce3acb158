"""Make sure that a step or a chain exists: read its record, or make what is missing.

The record is written last. If it exists, this takes one read and one list of the files that it
names, and no cluster is started. Otherwise a job takes the step's lease and runs an attempt of its
own (`orchestrator.execution.attempt`). The lease is advisory: if two jobs train the same step, both
finish with a valid result. The first record that is written counts, and both jobs return it.
"""

import time
from dataclasses import replace

from orchestrator.cluster.resources import check_steps
from orchestrator.execution.attempt import produce_step
from orchestrator.execution.context import RunContext
from orchestrator.execution.evaluate import ensure_evaluation
from orchestrator.execution.messages import WaitingForLease
from orchestrator.execution.scoreboard import Reporter, Scoreboard
from orchestrator.planning.planner import SPLIT, PlannedChain
from orchestrator.planning.resolver import PlannedStep
from orchestrator.records import layout
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
    waiting = False
    period = context.retries.lease_seconds
    interval = min(context.retries.heartbeat_seconds, period / 5)
    name = layout.step_lease(planned.key)
    lease = Lease(context.store, name, context.owner, period=period, interval=interval)
    while (record := repository.find_step(planned.key)) is None:
        if not lease.acquire():
            if not waiting and lease.holder:
                owner = lease.holder.owner
                context.notify(f"{planned.title}: waiting for {owner}, who holds its lease")
                if context.on_message:
                    context.on_message(WaitingForLease(owner))
                waiting = True
            time.sleep(context.retries.lease_poll_seconds)
            continue
        try:
            with lease.held():
                # The last holder of the lease may have published the step in the meantime.
                record = repository.find_step(planned.key)
                return record or produce_step(planned, plan, context, parent, lease, asked)
        except Stopped:
            raise
        except LeaseLost as error:
            context.notify(f"{planned.title}: {error}")
            waiting = False
            # Workers that still hold a copy of the old one must not take it for valid again.
            lease = Lease(context.store, name, context.owner, period=period, interval=interval)
    if problem := problem_of_files(context.store, record):
        raise InputError(problem)
    return record
