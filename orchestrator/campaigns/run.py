"""Run a campaign: train every step that is not published once, and publish complete chains.

Three parts work together. The scheduler (`orchestrator.campaigns.scheduler`) names the next step.
Ray Tune (`orchestrator.cluster.ray_tune`) runs a trial for it (`orchestrator.campaigns.trial`) on
the cluster. The bookkeeper (`orchestrator.campaigns.bookkeeper`) records what is published. All
state that matters is in the store, so another run continues where this one stopped.
"""

import secrets
import time
from collections.abc import Callable, Mapping
from queue import SimpleQueue

from orchestrator.campaigns.bookkeeper import Bookkeeper
from orchestrator.campaigns.events import Event
from orchestrator.campaigns.limits import Limits
from orchestrator.campaigns.live_view import LiveView
from orchestrator.campaigns.outcome import CampaignOutcome, ChainOutcome, StepOutcome
from orchestrator.campaigns.scheduler import Scheduler
from orchestrator.campaigns.trial import run_trial, trial_spec
from orchestrator.cluster.connection import connect, steps_at_once
from orchestrator.cluster.resources import check_batches
from orchestrator.execution.context import RunContext
from orchestrator.execution.messages import TrialFailed
from orchestrator.execution.scoreboard import Scoreboard
from orchestrator.planning.cost import Costs
from orchestrator.planning.planner import PlannedChain
from orchestrator.planning.step_tree import Node, StepTree
from orchestrator.planning.store_state import StepState, StoredStep
from orchestrator.records.repository import Repository

RunTrials = Callable[..., None]  # with the parameters of ray_tune.run


def run_campaign(
    name: str,
    tree: StepTree,
    stored: Mapping[str, StoredStep],
    context: RunContext,
    costs: Costs,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    run_trials: RunTrials | None = None,
) -> CampaignOutcome:
    """Publish everything of a campaign that is not published.

    Args:
        name: The campaign's name, for people.
        tree: Its steps.
        stored: Their states, as `look_up_steps` found them.
        context: The store, the resources and the tracker.
        costs: How long steps take.
        limits: How much this run may do.
        run_trials: Runs the trials; by default `orchestrator.cluster.ray_tune.run`.

    Returns:
        The outcome, when nothing is left that can be done, even if steps failed.

    Raises:
        InputError: The resources do not fit.
        KeyboardInterrupt: The run was interrupted. Another run continues it.
    """
    began = time.monotonic()
    batches = [node.planned.step.optimization.batch for node in tree.nodes.values()]
    check_batches(context.request.workers, batches)
    owner = f"{context.owner} ({name}, {secrets.token_hex(3)})"
    repository = Repository(context.store)
    scoreboard = Scoreboard(repository, context.convention)
    events = SimpleQueue[Event]()
    scheduler = Scheduler(
        tree,
        stored,
        repository,
        costs,
        limits,
        at_once=_at_once(stored, context, limits),
        owner=owner,
        on_event=events.put,
        score=lambda node: _miou(scoreboard, node),
        look_seconds=context.retries.scheduler_look_seconds,
    )
    outcomes = scheduler.outcomes
    line_seconds = context.retries.campaign_line_seconds
    view = LiveView(name, tree, outcomes, context.console, scheduler.seconds_left, line_seconds)
    with view, Bookkeeper(tree, outcomes, context, view, scoreboard, events) as bookkeeper:
        if not scheduler.finished:
            specs = {
                key: trial_spec(tree.nodes[key], context, owner, limits.retries)
                for key in scheduler.schedule.jobs
            }
            run = run_trials or _ray_tune()
            run(scheduler, run_trial, specs, losses=limits.retries, as_message=TrialFailed)
    chains = [
        bookkeeper.chains.get(number) or _unfinished(plan, outcomes)
        for number, plan in enumerate(tree.chains)
    ]
    return CampaignOutcome(
        steps=outcomes,
        chains=tuple(chains),
        problems=tuple(bookkeeper.problems),
        gpu_hours=scheduler.budget.spent,
        seconds=time.monotonic() - began,
    )


def _ray_tune() -> RunTrials:
    # Importing Ray takes a second, and a campaign that is published needs none of it.
    from orchestrator.cluster import ray_tune

    return ray_tune.run


def _at_once(stored: Mapping[str, StoredStep], context: RunContext, limits: Limits) -> int:
    """Return how many steps may run at once. Start Ray unless there is nothing to run."""
    if all(step.state == StepState.PUBLISHED for step in stored.values()):
        return 1
    connect(dashboard=True)
    fitting = steps_at_once(context.resources())
    return limits.max_concurrent or fitting


def _miou(scoreboard: Scoreboard, node: Node) -> float | None:
    return scoreboard.find(node.plan, node.key).scores.miou_all


def _unfinished(plan: PlannedChain, outcomes: Mapping[str, StepOutcome]) -> ChainOutcome:
    """Return the outcome of an unfinished chain, which is that of its first missing step."""
    for step in plan.steps:
        outcome = outcomes[step.key]
        if not outcome.state.exists:
            return ChainOutcome(plan.chain.name, outcome.state, outcome.reason)
    reason = "its steps are published, but its record could not be written"
    return ChainOutcome(plan.chain.name, StepState.FAILED, reason)
