"""See to it that steps, evaluations and chains exist: read the record, or make what is missing and write the record last.

Asking is cheap when the record is there: no cluster is started. Otherwise one job at a time, by courtesy of a lease, opens an
attempt of its own, which starts from the newest checkpoint of any attempt. Two that race both finish with a valid result; the
first to write the record is the one that counts, and the other returns it as its own.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from orchestrator.cluster import ray_train
from orchestrator.cluster.resources import Resources, check_batches
from orchestrator.execution.context import RunContext
from orchestrator.execution.evaluate import ensure_evaluation
from orchestrator.execution.follow import following
from orchestrator.execution.messages import AttemptStarted, WaitingForLease
from orchestrator.execution.worker import Assignment, TrainingOutcome, train
from orchestrator.planning.chain import Chain
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
from orchestrator.records.publish import (
    chain_record,
    publish_chain,
    publish_evaluation,
    publish_step,
    write_request,
)
from orchestrator.records.repository import Repository
from orchestrator.records.results import ChainResult, load_chains
from orchestrator.records.schema import EvaluationRecord, StepFailed, StepRecord
from orchestrator.store.base import StoreError
from orchestrator.store.lease import Lease, LeaseLost

RESTARTS = 3  # of an attempt whose workers are lost before a new checkpoint is reached
POLL_SECONDS = 2  # between looks at a lease that somebody else holds


def ensure_chain(plan: PlannedChain, place: RunContext) -> ChainResult:
    """Publish every step of a chain, each with its evaluation, then the chain's record; returns all of it, read back.

    Raises StepFailed, StoreError, and InputError when the resources do not fit.
    """
    check_batches(
        place.request.workers, [planned.step.optimization.batch for planned in plan.steps]
    )
    if place.tracker:
        place = replace(place, chain_run=place.tracker.chain_started(plan.chain, plan.steps))
    records: list[StepRecord] = []
    evaluations: list[EvaluationRecord] = []
    for planned in plan.steps:
        records.append(ensure_step(planned, plan, place, records[-1] if records else None))
        evaluations.append(ensure_evaluation(records[-1], plan.source(SPLIT), plan.scoring, place))
        _tell(place, plan.chain, records, evaluations)
    record = publish_chain(place.store, plan.chain, records, evaluations)
    (result,) = load_chains(Repository(place.store), [record])
    if place.tracker:
        place.tracker.chain_finished(result, place.convention)
    return result


def _tell(
    place: RunContext,
    chain: Chain,
    records: Sequence[StepRecord],
    evaluations: Sequence[EvaluationRecord],
) -> None:
    """Let the tracker know of the newest step and of the chain so far."""
    if place.tracker is None or place.chain_run is None:
        return
    repository = Repository(place.store)
    (so_far,) = load_chains(repository, [chain_record(chain, records, evaluations)])
    scores = list(so_far.scores(place.convention))
    names, rows = evaluations[-1].class_names, so_far.steps[-1].curves
    place.tracker.step_finished(records[-1], scores[-1], names, rows, place.chain_run)
    place.tracker.chain_progressed(place.chain_run, records, scores, names)


def ensure_step(
    planned: PlannedStep, plan: PlannedChain, place: RunContext, parent: StepRecord | None
) -> StepRecord:
    """The step's record; trains the step unless it is published, or waits for whoever is training it.

    Raises StepFailed; the attempt's folder keeps what there was, and the next attempt goes on from its checkpoints.
    """
    repository = Repository(place.store)
    asked, waiting = time.monotonic(), False
    period = place.lease_seconds
    lease = Lease(
        place.store,
        layout.step_lease(planned.key),
        place.owner,
        period=period,
        interval=min(10, period / 5),
    )
    while (record := repository.find_step(planned.key)) is None:
        if not lease.acquire():
            if not waiting and lease.holder:
                place.say(f"{planned.title}: waiting for {lease.holder.owner}, who holds its lease")
                if place.on_message:
                    place.on_message(WaitingForLease(lease.holder.owner))
                waiting = True
            time.sleep(POLL_SECONDS)
            continue
        try:
            with lease.held():
                # Whoever held the lease before may have published in the meantime.
                record = repository.find_step(planned.key) or _produce(
                    planned, plan, place, parent, lease, asked
                )
                break
        except LeaseLost as error:
            place.say(f"{planned.title}: {error}")
            waiting = False
    return record


def _produce(
    planned: PlannedStep,
    plan: PlannedChain,
    place: RunContext,
    parent: StepRecord | None,
    lease: Lease,
    asked: float,
) -> StepRecord:
    """Train, score and publish a step in a new attempt. Raises LeaseLost or StepFailed."""
    waited, begun = time.monotonic() - asked, time.time()
    store, attempt, resources = place.store, new_attempt(), place.resources()
    if place.on_message:
        place.on_message(AttemptStarted(attempt))
    write_request(store, planned.key, planned.title, planned.step, planned.index, planned.parent)
    assignment = Assignment(
        store,
        planned,
        attempt,
        lease,
        plan.chain.scenario.dataset,
        plan.manifest,
        parent,
        plan.scoring,
    )
    outcome, restarts = _watched(assignment, resources, plan, place)
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
            "wait": waited,
            "start": outcome.started - begun,
            **outcome.seconds,
            "stop": stopped,
        },
        images_per_second=images / outcome.seconds["train"] if images else None,
        resources={
            **resources.model_dump(),
            "attempts": count_attempts(store, planned.key),
            "restarts": restarts,
            "resumed_from": outcome.resumed_from,
        },
        provenance=provenance(outcome.device),
    )
    # Another worker may have been first; its record counts then.
    published = publish_step(store, record)
    delete_checkpoints(store, planned.key)
    return published


def _watched(
    assignment: Assignment, resources: Resources, plan: PlannedChain, place: RunContext
) -> tuple[TrainingOutcome, int]:
    """Train while people and the tracker watch; a failure is written down before it is raised."""
    planned, tracker = assignment.planned, place.tracker
    if tracker and place.chain_run:
        tracker.step_started(planned, plan.source("train"), place.chain_run)
    curves = partial(tracker.curves, planned.key) if tracker else lambda rows: None
    try:
        with following(place.store, planned, assignment.attempt, place.console, curves):
            return _train(assignment, resources, place)
    except ray_train.WorkersFailed as error:
        if isinstance(error.reason, LeaseLost):
            raise error.reason from error
        name = layout.error(planned.key, assignment.attempt)
        place.store.write(name, error.details.encode())
        if tracker:
            tracker.step_failed(planned.key)
        raise StepFailed(
            f"{planned.title} failed: {error} (details: {place.store.uri}/{name})"
        ) from error


def _train(
    assignment: Assignment, resources: Resources, place: RunContext
) -> tuple[TrainingOutcome, int]:
    """Run an attempt, again from the newest checkpoint whenever workers are lost; returns how often as well.

    Gives up after RESTARTS losses without a new checkpoint in between: what kills workers each time will go on doing so.
    """
    restarts = fruitless = reached = 0
    while True:
        try:
            name = f"{assignment.attempt}-{restarts}"
            return ray_train.run(
                partial(train, assignment), resources, name, partial(_stop, assignment, place)
            ), restarts
        except ray_train.WorkersFailed as error:
            if error.reason is not None:
                raise
            newest = newest_checkpoint(place.store, assignment.planned.key)
            iteration = newest.iteration if newest else 0
            fruitless = 0 if iteration > reached else fruitless + 1
            if fruitless > RESTARTS:
                raise
            reached, restarts = iteration, restarts + 1
            place.say(f"{assignment.planned.title}: {error}; going on from iteration {iteration}")


def _stop(assignment: Assignment, place: RunContext) -> None:
    """Have the workers keep a checkpoint and end: they find that the lease they were given is lost."""
    place.say(f"{assignment.planned.title}: keeping a checkpoint, then stopping")
    try:
        assignment.lease.seize()
    except StoreError as error:
        place.say(f"{assignment.planned.title}: stopping without a checkpoint: {error}")
