"""Run a campaign: train every step that is not published once, and publish complete chains.

Three parts work together. The scheduler (`orchestrator.campaigns.scheduler`) names the next step.
Ray Tune (`orchestrator.cluster.ray_tune`) runs a trial for it (`orchestrator.campaigns.trial`) on
the cluster. The bookkeeper (`orchestrator.campaigns.bookkeeper`) records what is published. All
state that matters is in the store, so another run continues where this one stopped.
"""

import secrets
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from queue import SimpleQueue

from orchestrator.campaigns.bookkeeper import Bookkeeper
from orchestrator.campaigns.events import Event
from orchestrator.campaigns.growth import Growth
from orchestrator.campaigns.limits import Limits
from orchestrator.campaigns.live_view import LiveView
from orchestrator.campaigns.outcome import CampaignOutcome, ChainOutcome, StepOutcome
from orchestrator.campaigns.room import Room, RoomWait
from orchestrator.campaigns.scheduler import Scheduler
from orchestrator.campaigns.stopping import Stopping, stopping_rule
from orchestrator.campaigns.trial import run_trial, trial_spec
from orchestrator.cluster.connection import connect
from orchestrator.cluster.give import Kind, step_kind
from orchestrator.cluster.machines import machines
from orchestrator.cluster.packing import Machines
from orchestrator.cluster.resources import Resources, check_steps
from orchestrator.execution.context import RunContext
from orchestrator.execution.messages import Notice, TrialFailed
from orchestrator.execution.scoreboard import Scoreboard
from orchestrator.planning.cost import Costs
from orchestrator.planning.planner import PlannedChain
from orchestrator.planning.step_tree import StepTree
from orchestrator.planning.store_state import StepState, StoredStep
from orchestrator.records.repository import Repository

RunTrials = Callable[..., None]  # with the parameters of ray_tune.run
Score = Callable[[PlannedChain, str], float | None]
MakeGrowth = Callable[[StepTree, Mapping[str, StepOutcome], Score], Growth]


def run_campaign(
    name: str,
    tree: StepTree,
    stored: Mapping[str, StoredStep],
    context: RunContext,
    costs: Costs,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    run_trials: RunTrials | None = None,
    growth: MakeGrowth | None = None,
) -> CampaignOutcome:
    """Publish everything of a campaign that is not published.

    Args:
        name: The campaign's name. Verdicts of a stopping rule are kept under it.
        tree: Its steps.
        stored: Their states, as `look_up_steps` found them.
        context: The store, the resources and the tracker.
        costs: How long steps take.
        limits: How much this run may do.
        run_trials: Runs the trials; by default `orchestrator.cluster.ray_tune.run`.
        growth: Names the samples by which a searched campaign grows while it runs.

    Returns:
        The outcome, when nothing is left that can be done, even if steps failed.

    Raises:
        InputError: The resources do not fit.
        KeyboardInterrupt: The run was interrupted. Another run continues it.
    """
    began = time.monotonic()
    check_steps(context.request, [each for chain in tree.chains for each in chain.batches])
    left = {key for key, step in stored.items() if step.state != StepState.PUBLISHED}
    kinds: set[Kind] = {step_kind(tree.nodes[key].planned.index) for key in left}
    if growth is not None:
        kinds |= {"base", "increment"}
    context = _settled(context, kinds) if kinds else context
    owner = f"{context.owner} ({name}, {secrets.token_hex(3)})"
    repository = Repository(context.store)
    scoreboard = Scoreboard(repository, context.convention)
    score = partial(_miou, scoreboard)
    rule = stopping_rule(limits)
    stopping = None
    if rule is not None:
        stopping = Stopping(rule, name, repository, lambda node: score(node.plan, node.key))
    events = SimpleQueue[Event]()
    scheduler = Scheduler(
        tree,
        stored,
        repository,
        costs,
        limits,
        room=RoomWait(
            _room(context, limits),
            context.retries.room_seconds,
            lambda text: events.put(Notice(text)),
            time.monotonic,
        ),
        owner=owner,
        on_event=events.put,
        stopping=stopping,
        look_seconds=context.retries.scheduler_look_seconds,
        growth=growth and (lambda outcomes: growth(tree, outcomes, score)),
    )
    outcomes = scheduler.outcomes
    line_seconds = context.retries.campaign_line_seconds
    view = LiveView(name, tree, outcomes, context.console, scheduler.seconds_left, line_seconds)
    with view, Bookkeeper(tree, outcomes, context, view, scoreboard, events) as bookkeeper:
        if not scheduler.finished:
            run = run_trials or _ray_tune()
            run(
                scheduler,
                run_trial,
                lambda key: trial_spec(tree.nodes[key], context, owner, limits.retries),
                losses=limits.retries,
                as_message=TrialFailed,
            )
    chains = [
        bookkeeper.chains.get(number) or _unfinished(plan, outcomes)
        for number, plan in enumerate(tree.chains)
    ]
    return CampaignOutcome(
        steps=outcomes,
        chains=tuple(chains),
        problems=(*scheduler.problems, *bookkeeper.problems),
        gpu_hours=scheduler.budget.spent,
        seconds=time.monotonic() - began,
    )


def _ray_tune() -> RunTrials:
    # Importing Ray takes a second, and a campaign that is published needs none of it.
    from orchestrator.cluster import ray_tune

    return ray_tune.run


def _settled(context: RunContext, kinds: Collection[Kind]) -> RunContext:
    """Start Ray, and decide what steps of these kinds and their evaluations are given.

    A machine that is lost later does not change it, or the rest would be trained on what is left.
    """
    connect()
    wanted = set(kinds)
    if context.request.gives("evaluation"):
        wanted.add("evaluation")
    return replace(context, settled={kind: context.resources(kind) for kind in wanted})


def _room(context: RunContext, limits: Limits) -> Room:
    """Return what says which steps may train at once."""
    settled = context.settled
    if settled is None:  # there is nothing to run
        return Room(lambda: Machines(()), {})
    steps: dict[Kind, Resources] = {
        kind: each for kind, each in settled.items() if kind != "evaluation"
    }
    return Room(machines, steps, limits.max_concurrent, context.retries.scheduler_look_seconds)


def _miou(scoreboard: Scoreboard, plan: PlannedChain, key: str) -> float | None:
    return scoreboard.find(plan, key).scores.miou_all


def _unfinished(plan: PlannedChain, outcomes: Mapping[str, StepOutcome]) -> ChainOutcome:
    """Return the outcome of an unfinished chain, which is that of its first missing step."""
    for step in plan.steps:
        outcome = outcomes[step.key]
        if not outcome.state.exists:
            return ChainOutcome(plan.chain.name, outcome.state, outcome.reason)
    reason = "its steps are published, but its record could not be written"
    return ChainOutcome(plan.chain.name, StepState.FAILED, reason)
