"""What a campaign's trial does: see to one step and its evaluations, try again what failed, tell the driver.

A trial needs nothing but its `Part` and the store, so it runs on any process of the cluster and can be started again at any
moment. It starts the step's workers and waits for them; by itself it holds no CPU and no GPU.
"""

from dataclasses import dataclass, replace

from rich.console import Console

from orchestrator.cluster.resources import Request
from orchestrator.execution.context import RunContext
from orchestrator.execution.ensure import ensure_step
from orchestrator.execution.evaluate import ensure_evaluation
from orchestrator.execution.messages import OnMessage, StepPublished, TrialFailed
from orchestrator.planning.planner import PlannedChain
from orchestrator.planning.resolver import PlannedStep
from orchestrator.planning.step_tree import Node
from orchestrator.records.repository import Repository
from orchestrator.records.schema import DataSource, Scoring, StepFailed
from orchestrator.store.base import Store, StoreError
from orchestrator.store.retries import Retries
from training.config import InputError


@dataclass(frozen=True)
class TrialSpec:
    """All that a trial must know."""

    planned: PlannedStep
    plan: PlannedChain  # of a chain that wants the step; without its steps
    scorings: tuple[tuple[DataSource, Scoring], ...]
    store: Store
    request: Request
    owner: str  # of the lease, for people, and for the driver to know its own trials' leases by
    retries: Retries


def trial_spec(node: Node, place: RunContext, owner: str, retries: int) -> TrialSpec:
    """A node's part of the work."""
    plan = replace(node.plan, steps=())
    return TrialSpec(
        node.planned,
        plan,
        node.scorings,
        place.store,
        place.request,
        owner,
        replace(place.retries, trial_retries=retries),
    )


def run_trial(spec: TrialSpec, on_message: OnMessage) -> None:
    """Publish the step and its evaluations unless they are. The last message is StepPublished or TrialFailed."""
    place = RunContext(
        spec.store,
        spec.request,
        Console(quiet=True),
        owner=spec.owner,
        retries=spec.retries,
        follows_steps=False,
        on_message=on_message,
    )
    for left in reversed(range(spec.retries.trial_retries + 1)):
        try:
            on_message(StepPublished(_ensure(spec, place)))
            return
        except InputError as error:  # would fail again
            on_message(TrialFailed(str(error)))
            return
        except (StepFailed, StoreError) as error:
            if left:
                place.say(f"{spec.planned.title} is tried again, {left} times at most: {error}")
            else:
                on_message(TrialFailed(str(error)))


def _ensure(spec: TrialSpec, place: RunContext) -> str:
    parent = None
    if spec.planned.parent:
        parent = Repository(spec.store).find_step(spec.planned.parent)
        if parent is None:
            raise InputError(
                f"the record of its parent {spec.planned.parent} is gone from {spec.store.uri}: run the campaign again"
            )
    record = ensure_step(spec.planned, spec.plan, place, parent)
    for source, scoring in spec.scorings:
        ensure_evaluation(record, source, scoring, place)
    return record.attempt
