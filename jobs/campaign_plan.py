"""Show what a campaign will do before it does it: its tree, what of it is published, and what the rest costs."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.tree import Tree as RichTree

from orchestrator.campaign import Campaign
from orchestrator.costs import Bill, Costs, images
from orchestrator.survey import Standing, State
from orchestrator.tree import Node, Tree

SHOWN_SEGMENTS = 100  # of a tree on a terminal
SHOWN_NAMES = 3  # of the chains that end at a step
COLOURS: dict[State, str] = {
    "published": "green",
    "training": "cyan",
    "to score": "yellow",
    "to train": "bold",
    "waiting": "dim",
}


def show_plan(
    campaign: Campaign, tree: Tree, standings: Mapping[str, Standing], costs: Costs, total: Bill, console: Console
) -> None:
    """Print the tree and what it costs."""
    ends = _ends(tree)
    root = RichTree(
        f"[bold]{escape(campaign.name)}[/bold]  {escape(campaign.question.partition(chr(10))[0])}", guide_style="dim"
    )
    branches: dict[str | None, RichTree] = {None: root}
    for segment in tree.segments[:SHOWN_SEGMENTS]:
        text = "\n".join(_line(node, standings[node.key], costs, ends) for node in segment.nodes)
        branches[segment.id] = branches[segment.parent].add(text)
    console.print(root, markup=True)
    hidden = tree.segments[SHOWN_SEGMENTS:]
    if hidden:
        console.print(f"... and {sum(len(segment.nodes) for segment in hidden):,} more steps; --json prints all of them")
    for line in summary(tree, standings, costs, total):
        console.print(line)


def summary(tree: Tree, standings: Mapping[str, Standing], costs: Costs, total: Bill) -> list[str]:
    """How many steps there are and what they cost, in two sentences."""
    states = Counter(standing.state for standing in standings.values())
    told = ", ".join(f"{states[state]:,} {state}" for state in COLOURS if states[state])
    first = (
        f"{len(tree.chains):,} chains, {len(tree.nodes):,} different steps ({told}); "
        f"trained one by one, the chains would take {tree.naive_steps:,}"
    )
    if total.seconds is None or total.naive_seconds is None or total.critical_path is None:
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


def plan_document(
    campaign: Campaign, tree: Tree, standings: Mapping[str, Standing], costs: Costs, total: Bill
) -> dict[str, Any]:
    """The plan for machines; what is not known is None."""
    published = sum(standing.state == "published" for standing in standings.values())
    return {
        "campaign": campaign.name,
        "chains": len(tree.chains),
        "unique_steps": len(tree.nodes),
        "naive_steps": tree.naive_steps,
        "published_steps": published,
        "images": total.images,
        "naive_images": total.naive_images,
        "gpu_hours": _gpu_hours(costs, total.seconds),
        "naive_gpu_hours": _gpu_hours(costs, total.naive_seconds),
        "critical_path_hours": None if total.critical_path is None else total.critical_path / 3600,
        "steps": [_step_document(node, tree, standings[node.key], costs) for node in tree.nodes.values()],
    }


def _step_document(node: Node, tree: Tree, standing: Standing, costs: Costs) -> dict[str, Any]:
    return {
        "key": node.key,
        "parent": node.parent,
        "index": node.planned.index,
        "title": node.planned.title,
        "state": standing.state,
        "holder": standing.holder.owner if standing.holder else None,
        "images": images(node.planned),
        "gpu_hours": _gpu_hours(costs, costs.seconds(node.planned)),
        "chains": [tree.chains[number].chain.name for number in node.chains],
    }


def _gpu_hours(costs: Costs, seconds: float | None) -> float | None:
    return None if seconds is None else costs.gpu_hours(seconds)


def _line(node: Node, standing: Standing, costs: Costs, ends: Mapping[str, Sequence[str]]) -> str:
    """One step: what it is, how it stands, what it costs, and whose last step it is."""
    colour = COLOURS[standing.state]
    state = f"{standing.state} by {standing.holder.owner}" if standing.holder else standing.state
    parts = [f"{escape(node.planned.title)}  [dim]{node.key}[/dim]  [{colour}]{escape(state)}[/{colour}]"]
    seconds = costs.seconds(node.planned)
    if standing.record is None:
        parts.append(f"{images(node.planned):,} images" if seconds is None else f"{costs.gpu_hours(seconds):.2g} GPU-hours")
    names = ends.get(node.key, ())
    if names:
        more = len(names) - SHOWN_NAMES
        parts.append("→ " + escape(", ".join(names[:SHOWN_NAMES])) + (f" and {more} more" if more > 0 else ""))
    return "  ".join(parts)


def _ends(tree: Tree) -> dict[str, list[str]]:
    """Names of the chains that end at a step."""
    found: dict[str, list[str]] = defaultdict(list)
    for plan in tree.chains:
        found[plan.steps[-1].key].append(plan.chain.name)
    return found
