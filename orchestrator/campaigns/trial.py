"""Publish one step and its evaluations, as a trial of a campaign.

A trial needs only its `TrialSpec` and the store. It may run in any process of the cluster, and be
started again at any moment. It starts the step's workers and waits for them. By itself it holds no
CPU and no GPU.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from rich.console import Console

from orchestrator.cluster.give import Kind, step_kind
from orchestrator.cluster.resources import Resources
from orchestrator.execution.context import RunContext
from orchestrator.execution.ensure import ensure_step
from orchestrator.execution.evaluate import ensure_evaluation
from orchestrator.execution.messages import OnMessage, StepPublished, TrialFailed
from orchestrator.planning.planner import PlannedChain
from orchestrator.planning.resolver import PlannedStep
from orchestrator.planning.step_tree import Node
from orchestrator.records.repository import Repository
from orchestrator.records.schema import DataSource, Scoring, StepFailed, StepHasNoRoom
from orchestrator.store.base import Store, StoreError
from orchestrator.store.lease import Stopped
from orchestrator.store.retries import Retries
from training.config import InputError


@dataclass(frozen=True)
class TrialSpec:
    """Everything that a trial must know."""

    planned: PlannedStep
    # A chain that wants the step, without its steps.
    plan: PlannedChain
    scorings: tuple[tuple[DataSource, Scoring], ...]
    store: Store
    resources: Mapping[Kind, Resources]  # of the step's kind and, if they have their own, of scores
    # The owner of the leases. People read it, and the driver finds its own trials' leases by it.
    owner: str
    retries: Retries


def trial_spec(node: Node, context: RunContext, owner: str, retries: int) -> TrialSpec:
    """Return the specification of a trial for a step. `retries`: how often it is tried again."""
    return TrialSpec(
        planned=node.planned,
        plan=replace(node.plan, steps=()),
        scorings=node.scorings,
        store=context.store,
        resources=_resources(node, context),
        owner=owner,
        retries=replace(context.retries, trial_retries=retries),
    )


def _resources(node: Node, context: RunContext) -> dict[Kind, Resources]:
    """Return what the step is given, and what its evaluations are."""
    index = node.planned.index
    kind = step_kind(index)
    found: dict[Kind, Resources] = {kind: context.resources(kind)}
    to_score = context.resources_to_score(index)
    if to_score != found[kind]:
        found["evaluation"] = to_score
    return found


def run_trial(spec: TrialSpec, on_message: OnMessage) -> None:
    """Publish the step and its evaluations unless they are published.

    The last message is StepPublished or TrialFailed, if the driver does not stop the run before.
    """
    context = RunContext(
        spec.store,
        settled=spec.resources,
        console=Console(quiet=True),
        owner=spec.owner,
        retries=spec.retries,
        follows_steps=False,
        on_message=on_message,
    )
    for left in reversed(range(spec.retries.trial_retries + 1)):
        try:
            on_message(StepPublished(_publish(spec, context)))
            return
        except Stopped:
            return
        except (InputError, StepHasNoRoom) as error:
            # Another try would fail alike.
            on_message(TrialFailed(str(error)))
            return
        except (StepFailed, StoreError) as error:
            if left:
                title = spec.planned.title
                context.notify(f"{title} is tried again, {left} times at most: {error}")
            else:
                on_message(TrialFailed(str(error)))


def _publish(spec: TrialSpec, context: RunContext) -> str:
    """Return the attempt that published the step, which may be another campaign's."""
    parent = None
    if spec.planned.parent:
        parent = Repository(spec.store).find_step(spec.planned.parent)
        if parent is None:
            raise InputError(
                f"the record of its parent {spec.planned.parent} is gone from {spec.store.uri}: "
                "run the campaign again"
            )
    record = ensure_step(spec.planned, spec.plan, context, parent)
    for source, scoring in spec.scorings:
        ensure_evaluation(record, source, scoring, context)
    return record.attempt
