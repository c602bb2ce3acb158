"""What a campaign will do, before it does it: its tree, what of it is published, what the rest costs, and how that is shown."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.tree import Tree as RichTree

from jobs.options import StoreOptions, with_weights
from orchestrator.cluster.resources import Request, check_batches
from orchestrator.planning.campaign import Campaign
from orchestrator.planning.chain import Chain
from orchestrator.planning.cost import (
    CostEstimate,
    Costs,
    estimate_cost,
    images,
    measure,
    past_records,
)
from orchestrator.planning.planner import Planner
from orchestrator.planning.step_tree import Node, StepTree, build_tree, first_steps
from orchestrator.planning.store_state import State, StoredStep, look_up_steps
from orchestrator.store.base import Store
from training.config import InputError

SHOWN_SEGMENTS = 100  # of a tree on a terminal
SHOWN_NAMES = 3  # of the chains that end at a step
COLOURS: dict[State, str] = {
    "published": "green",
    "training": "cyan",
    "to score": "yellow",
    "to train": "bold",
    "waiting": "dim",
}


@dataclass(frozen=True)
class ChainFilter:
    """Which part of a campaign is meant; by default all of it."""

    only: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Only chains whose name, or a word of it, matches: `alpha=0.5`, `wilson*`. Repeated, chains that match any."""
    until_step: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Only steps 0 to N of each chain."""


@dataclass(frozen=True)
class CampaignPlan:
    """A campaign, how its steps stand in the store, and what steps cost."""

    campaign: Campaign
    tree: StepTree
    standings: Mapping[str, StoredStep]
    costs: Costs

    @cached_property
    def bill(self) -> CostEstimate:
        return estimate_cost(self.tree, self.standings, self.costs)


def make_plan(
    campaign: Campaign,
    part: ChainFilter,
    options: StoreOptions,
    request: Request,
    guess: float | None,
    store: Store,
) -> CampaignPlan:
    """Look into the store, and add up. `guess`: images per second of one worker. All that can be refused is refused here."""
    tree = planned_tree(campaign, part, options, store)
    check_batches(
        request.workers, [node.planned.step.optimization.batch for node in tree.nodes.values()]
    )
    standings = look_up_steps(tree, store)
    return CampaignPlan(
        campaign, tree, standings, measure(past_records(store, standings), request, guess)
    )


def planned_tree(
    campaign: Campaign, part: ChainFilter, options: StoreOptions, store: Store
) -> StepTree:
    """The tree of the campaign's chains, or of the part of them that is meant. Raises InputError."""
    if part.until_step is not None and part.until_step < 0:
        raise InputError(f"--until-step counts from step 0, and {part.until_step} comes before it")
    planner = Planner(store)
    chains = with_weights(chosen(campaign, part.only), options.encoder_weights, store)
    return build_tree([first_steps(planner.plan(chain), part.until_step) for chain in chains])


def chosen(campaign: Campaign, patterns: Sequence[str]) -> tuple[Chain, ...]:
    """The chains whose name, or a word of it, matches one of the patterns; all of them when there are no patterns.

    Raises InputError for a pattern that matches nothing.
    """
    matching: dict[str, Chain] = {}
    for pattern in patterns:
        found = [chain for chain in campaign.chains if _matches(chain.name, pattern)]
        if not found:
            names = ", ".join(repr(chain.name) for chain in campaign.chains[:4])
            raise InputError(
                f"--only {pattern!r} matches no chain of {campaign.name!r}, whose chains are called {names} ..."
            )
        matching |= {chain.name: chain for chain in found}
    return (
        tuple(chain for chain in campaign.chains if chain.name in matching)
        if patterns
        else campaign.chains
    )


def _matches(name: str, pattern: str) -> bool:
    return any(fnmatchcase(text, pattern) for text in (name, *name.split()))


def show_plan(plan: CampaignPlan, console: Console) -> None:
    """Print the tree and what it costs."""
    ends = _ends(plan.tree)
    question = plan.campaign.question.partition("\n")[0]
    root = RichTree(
        f"[bold]{escape(plan.campaign.name)}[/bold]  {escape(question)}", guide_style="dim"
    )
    branches: dict[str | None, RichTree] = {None: root}
    for segment in plan.tree.segments[:SHOWN_SEGMENTS]:
        text = "\n".join(
            _line(node, plan.standings[node.key], plan.costs, ends) for node in segment.nodes
        )
        branches[segment.id] = branches[segment.parent].add(text)
    console.print(root, markup=True)
    hidden = sum(len(segment.nodes) for segment in plan.tree.segments[SHOWN_SEGMENTS:])
    if hidden:
        console.print(f"... and {hidden:,} more steps; --json prints all of them")
    console.print(*summary(plan), sep="\n")


def summary(plan: CampaignPlan) -> list[str]:
    """How many steps there are and what they cost, in two sentences."""
    tree, costs, total = plan.tree, plan.costs, plan.bill
    states = Counter(standing.state for standing in plan.standings.values())
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


def plan_document(plan: CampaignPlan) -> dict[str, Any]:
    """The plan for machines; what is not known is None."""
    total = plan.bill
    return {
        "campaign": plan.campaign.name,
        "chains": len(plan.tree.chains),
        "unique_steps": len(plan.tree.nodes),
        "naive_steps": plan.tree.naive_steps,
        "published_steps": sum(
            standing.state == "published" for standing in plan.standings.values()
        ),
        "images": total.images,
        "naive_images": total.naive_images,
        "gpu_hours": _gpu_hours(plan.costs, total.seconds),
        "naive_gpu_hours": _gpu_hours(plan.costs, total.naive_seconds),
        "critical_path_hours": None if total.critical_path is None else total.critical_path / 3600,
        "steps": [_step_document(node, plan) for node in plan.tree.nodes.values()],
    }


def _step_document(node: Node, plan: CampaignPlan) -> dict[str, Any]:
    standing = plan.standings[node.key]
    return {
        "key": node.key,
        "parent": node.parent,
        "index": node.planned.index,
        "title": node.planned.title,
        "state": standing.state,
        "holder": standing.holder.owner if standing.holder else None,
        "images": images(node.planned),
        "gpu_hours": _gpu_hours(plan.costs, plan.costs.seconds(node.planned)),
        "chains": [plan.tree.chains[number].chain.name for number in node.chains],
    }


def _gpu_hours(costs: Costs, seconds: float | None) -> float | None:
    return None if seconds is None else costs.gpu_hours(seconds)


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
