"""Show the plan of a campaign: its tree, what of it is published and what the rest costs."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console
from rich.markup import escape
from rich.tree import Tree as RichTree

from orchestrator.planning.campaign_plan import CampaignPlan
from orchestrator.planning.cost import Costs, images
from orchestrator.planning.step_tree import Node, StepTree, split_segments
from orchestrator.planning.store_state import StepState, StoredStep

SHOWN_SEGMENTS = 100  # of a tree on a terminal
SHOWN_NAMES = 3  # of the chains that end at a step
COLOURS = {
    StepState.PUBLISHED: "green",
    StepState.RUNNING: "cyan",
    StepState.TO_SCORE: "yellow",
    StepState.TO_TRAIN: "bold",
    StepState.WAITING: "dim",
}


@dataclass(frozen=True)
class ChainFilter:
    """Which part of a campaign is meant; by default all of it."""

    only: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Only chains whose name, or a word of it, matches: `alpha=0.5`, `wilson*`. Repeated, chains that match any."""
    until_step: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Only steps 0 to N of each chain."""


def show_plan(plan: CampaignPlan, console: Console) -> None:
    """Print the tree and what it costs."""
    ends = _ends(plan.tree)
    question = plan.campaign.question.partition("\n")[0]
    root = RichTree(
        f"[bold]{escape(plan.campaign.name)}[/bold]  {escape(question)}", guide_style="dim"
    )
    branches: dict[str | None, RichTree] = {None: root}
    segments = split_segments(plan.tree)
    for segment in segments[:SHOWN_SEGMENTS]:
        text = "\n".join(
            _line(node, plan.stored[node.key], plan.costs, ends) for node in segment.nodes
        )
        branches[segment.id] = branches[segment.parent].add(text)
    console.print(root, markup=True)
    hidden = sum(len(segment.nodes) for segment in segments[SHOWN_SEGMENTS:])
    if hidden:
        console.print(f"... and {hidden:,} more steps; --json prints all of them")
    console.print(*summary(plan), sep="\n")


def summary(plan: CampaignPlan) -> list[str]:
    """How many steps there are and what they cost, in two sentences."""
    tree, costs, total = plan.tree, plan.costs, plan.estimate
    states = Counter(standing.state for standing in plan.stored.values())
    told = ", ".join(f"{states[state]:,} {state}" for state in COLOURS if states[state])
    first = (
        f"{len(tree.chains):,} chains, {len(tree.nodes):,} different steps ({told}); "
        f"trained one by one, the chains would take {tree.naive_steps:,}"
    )
    if total.seconds == 0:
        second = "nothing is left to train"
    elif total.seconds is None or total.naive_seconds is None or total.critical_path is None:
        second = (
            f"{total.images:,} images to train on, each counted once an epoch ({total.naive_images:,} one by one); "
            "no past record tells how long that takes: give a guess with --images-per-second"
        )
    else:
        left, naive = costs.gpu_hours(total.seconds), costs.gpu_hours(total.naive_seconds)
        second = (
            f"about {left:.3g} GPU-hours to go ({naive:.3g} one by one, from nothing), "
            f"and {total.critical_path / 3600:.3g} hours at least, however many GPUs there are"
        )
    return [first, second]


def _line(node: Node, standing: StoredStep, costs: Costs, ends: Mapping[str, Sequence[str]]) -> str:
    """One step: what it is, how it stands, what it costs, and whose last step it is."""
    colour = COLOURS[standing.state]
    state = f"{standing.state} by {standing.holder.owner}" if standing.holder else standing.state
    parts = [
        f"{escape(node.planned.title)}  [dim]{node.key}[/dim]  [{colour}]{escape(state)}[/{colour}]"
    ]
    seconds = costs.seconds(node.planned)
    if standing.record is None:
        parts.append(
            f"{images(node.planned):,} images"
            if seconds is None
            else f"{costs.gpu_hours(seconds):.2g} GPU-hours"
        )
    names = ends.get(node.key, ())
    if names:
        more = len(names) - SHOWN_NAMES
        parts.append(
            "→ "
            + escape(", ".join(names[:SHOWN_NAMES]))
            + (f" and {more} more" if more > 0 else "")
        )
    return "  ".join(parts)


def _ends(tree: StepTree) -> dict[str, list[str]]:
    """Names of the chains that end at a step."""
    found: dict[str, list[str]] = defaultdict(list)
    for plan in tree.chains:
        found[plan.steps[-1].key].append(plan.chain.name)
    return found
