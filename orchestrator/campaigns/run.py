"""Run a campaign: train every step that is not published once, on Ray Tune, and publish every chain whose steps exist.

Three parts work together. The desk (`orchestrator.campaigns.scheduler`) says which step is next and what became of each; Tune
(`orchestrator.cluster.ray_tune`) runs a trial for it (`orchestrator.campaigns.trial`) on the cluster; the chronicle (`orchestrator.campaigns.bookkeeper`)
writes down what comes of it. All state that matters is in the store, so running a campaign again goes on where it stopped.
"""

import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import SimpleQueue
from typing import get_args

from rich import box
from rich.table import Table

from orchestrator.campaigns.bookkeeper import THERE, Bookkeeper, ChainOutcome, Scoreboard
from orchestrator.campaigns.live_view import LiveView
from orchestrator.campaigns.scheduler import Limits, Scheduler, State, StepOutcome
from orchestrator.campaigns.trial import run_trial, trial_spec
from orchestrator.cluster.connection import connect, steps_at_once
from orchestrator.cluster.resources import check_batches
from orchestrator.execution.context import RunContext
from orchestrator.execution.messages import TrialFailed
from orchestrator.planning.cost import Costs
from orchestrator.planning.planner import PlannedChain
from orchestrator.planning.step_tree import Node, StepTree
from orchestrator.planning.store_state import StoredStep

Run = Callable[..., None]  # as ray_tune.run


@dataclass(frozen=True)
class CampaignOutcome:
    """What became of a campaign's steps and chains."""

    steps: dict[str, StepOutcome]  # by key, parents first
    chains: tuple[ChainOutcome, ...]  # as the campaign lists them
    problems: tuple[str, ...]  # what could not be written down though the steps are there
    gpu_hours: float  # that this run has spent
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether everything that was asked for is published."""
        return not self.problems and all(chain.state in THERE for chain in self.chains)


def run_campaign(
    name: str,
    tree: StepTree,
    standings: Mapping[str, StoredStep],
    place: RunContext,
    costs: Costs,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    run: Run | None = None,
) -> CampaignOutcome:
    """Publish all that is not published. `standings`: as `survey` found them; `run`: what calls the trials, by default ray_tune.run.

    Returns when nothing is left that can be done, whatever failed. Raises InputError when the resources do not fit,
    KeyboardInterrupt when it is stopped: then running it again goes on.
    """
    began, events = time.monotonic(), SimpleQueue[tuple[str, str]]()
    check_batches(
        place.request.workers,
        [node.planned.step.optimization.batch for node in tree.nodes.values()],
    )
    owner = f"{place.owner} ({name}, {secrets.token_hex(3)})"
    board = Scoreboard(place.store, place.convention)
    desk = Scheduler(
        tree,
        standings,
        place.store,
        costs,
        limits,
        at_once=_at_once(standings, place, limits),
        owner=owner,
        notify=lambda what, key: events.put((what, key)),
        score=lambda node: _miou(board, node),
    )
    period = place.retries.campaign_line_seconds
    view = LiveView(name, tree, desk.fates, place.console, desk.seconds_left, period)
    with view, Bookkeeper(tree, desk.fates, place, view, board, events) as chronicle:
        if not desk.finished:
            if run is None:
                from orchestrator.cluster import ray_tune  # importing Ray takes a second

                run = ray_tune.run
            parts = {
                key: trial_spec(tree.nodes[key], place, owner, limits.retries)
                for key in desk.schedule.jobs
            }
            run(desk, run_trial, parts, losses=limits.retries, as_message=TrialFailed)
    chains = tuple(
        chronicle.chains.get(number) or _unfinished(plan, desk.fates)
        for number, plan in enumerate(tree.chains)
    )
    return CampaignOutcome(
        desk.fates, chains, tuple(chronicle.problems), desk.spent, time.monotonic() - began
    )


def _at_once(standings: Mapping[str, StoredStep], place: RunContext, limits: Limits) -> int:
    """How many steps may run at once; starts Ray unless there is nothing to run."""
    if all(standing.state == "published" for standing in standings.values()):
        return 1
    connect(dashboard=True)
    fitting = steps_at_once(place.resources())
    return limits.max_concurrent or fitting


def _miou(board: Scoreboard, node: Node) -> float | None:
    return board.find(node.plan, node.key).scores.miou_all


def _unfinished(plan: PlannedChain, fates: Mapping[str, StepOutcome]) -> ChainOutcome:
    """The fate of a chain that was not finished: that of the first of its steps that is not there."""
    for step in plan.steps:
        fate = fates[step.key]
        if fate.state not in THERE:
            return ChainOutcome(plan.chain.name, fate.state, fate.reason)
    return ChainOutcome(
        plan.chain.name, "failed", "its steps are published, but its record could not be written"
    )


def outcome_tables(outcome: CampaignOutcome) -> list[Table]:
    """How many steps and chains ended how; then the chains that are not published, each with its reason."""
    counted = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    states = [state for state in get_args(State) if state not in ("waiting", "running")]
    for heading in ("", *states):
        counted.add_column(heading, justify="right" if heading else "left")
    for what, fates in (("steps", outcome.steps.values()), ("chains", outcome.chains)):
        counts = Counter(fate.state for fate in fates)
        counted.add_row(what, *(str(counts[state]) for state in states))
    unfinished = [chain for chain in outcome.chains if chain.state not in THERE]
    if not unfinished:
        return [counted]
    table = Table("chain", "", "why", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for chain in unfinished:
        table.add_row(chain.name, chain.state, chain.reason)
    return [counted, table]
