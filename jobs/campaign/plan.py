"""Print the plan of a campaign: its tree, what of it is published and what the rest costs."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from rich.console import Console
from rich.markup import escape
from rich.tree import Tree as RichTree

from orchestrator.planning.campaign_plan import CampaignPlan
from orchestrator.planning.cost import Costs, compilation_advice, images
from orchestrator.planning.nearest_step import Nearest, describe_nearest
from orchestrator.planning.remarks import remarks
from orchestrator.planning.search import bounds_in_words
from orchestrator.planning.search_plan import SearchEstimate
from orchestrator.planning.step_tree import Node, Segment, StepTree, split_segments
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


def print_plan(
    plan: CampaignPlan,
    console: Console,
    nearest: Mapping[str, Nearest | None] = MappingProxyType({}),
) -> None:
    """Print the tree of steps and what it costs.

    Args:
        plan: The plan.
        console: Where to print it.
        nearest: The published step that is most like one without a record, by the latter's key.
    """
    ends = _chains_by_last_step(plan.tree)
    question = plan.campaign.question.partition("\n")[0]
    title = f"[bold]{escape(plan.campaign.name)}[/bold]  {escape(question)}"
    root = RichTree(title, guide_style="dim")
    branches: dict[str | None, RichTree] = {None: root}
    segments = split_segments(plan.tree)
    shown = _shown(segments, plan.stored)
    for segment in shown:
        lines = []
        for node in segment.nodes:
            lines.append(_describe_step(node, plan.stored[node.key], plan.costs, ends))
            if node.key in nearest:
                lines.append(f"  [dim]{escape(describe_nearest(nearest[node.key]))}[/dim]")
        branches[segment.id] = branches[segment.parent].add("\n".join(lines))
    console.print(root, markup=True, soft_wrap=False)
    hidden = len(plan.tree.nodes) - sum(len(segment.nodes) for segment in shown)
    if hidden:
        console.print(f"... and {hidden:,} more steps; --json prints all of them")
    console.print(*summary(plan), sep="\n")
    for remark, names in _remarks(plan.tree).items():
        console.print(f"{', '.join(names)}: {remark}", markup=False)


def _shown(segments: Sequence[Segment], stored: Mapping[str, StoredStep]) -> list[Segment]:
    """Return the segments to print, in their order: of many, those that are not done come first."""
    by_id = {segment.id: segment for segment in segments}
    shown: set[str] = set()
    for segment in sorted(segments, key=lambda each: _is_done(each, stored)):
        path = {segment.id}
        while segment.parent is not None:
            segment = by_id[segment.parent]
            path.add(segment.id)
        if len(shown | path) > SHOWN_SEGMENTS:
            break
        shown |= path
    return [segment for segment in segments if segment.id in shown]


def _is_done(segment: Segment, stored: Mapping[str, StoredStep]) -> bool:
    return all(stored[node.key].state == StepState.PUBLISHED for node in segment.nodes)


def summary(plan: CampaignPlan) -> list[str]:
    """Return in sentences how many steps there are, what they cost and what memory they need."""
    sentences = [_describe_steps(plan), _describe_cost(plan)]
    if plan.search:
        sentences.append(_describe_search(plan.search))
    sentences += map(str, plan.memory)
    if plan.request.compile:
        sentences.append(compilation_advice())
    return sentences


def _describe_steps(plan: CampaignPlan) -> str:
    """Return how many chains and steps there are, and how many steps are in which state."""
    tree = plan.tree
    counts = Counter(step.state for step in plan.stored.values())
    states = ", ".join(f"{counts[state]:,} {state}" for state in COLOURS if counts[state])
    return (
        f"{len(tree.chains):,} chains, {len(tree.nodes):,} different steps ({states}); "
        f"trained one by one, the chains would take {tree.naive_steps:,}"
    )


def _describe_search(search: SearchEstimate) -> str:
    """Return how far a search is, its bounds, and what the samples to come will cost."""
    bounds = bounds_in_words(search.bounds)
    left = search.samples - search.known
    cost = f"{search.images:,} images"
    if search.gpu_hours is not None:
        cost = f"about {search.gpu_hours:.3g} GPU-hours"
    return (
        f"{search.searcher} names {search.samples} samples of {bounds}; above are the first "
        f"{search.known}, and the {left} to come take {cost} more"
    )


def _describe_cost(plan: CampaignPlan) -> str:
    """Return what is left to train, in GPU-hours if past records show the speed, else in images."""
    cost = plan.estimate
    if cost.seconds == 0:
        return "nothing is left to train"
    left, naive = cost.gpu_hours, cost.naive_gpu_hours
    if left is None or naive is None or cost.critical_path is None:
        return (
            f"{cost.images:,} images to train on, each counted once an epoch "
            f"({cost.naive_images:,} one by one); no past record shows how long that takes: "
            "give a guess with --images-per-second"
        )
    return (
        f"about {left:.3g} GPU-hours to go ({naive:.3g} one by one, from nothing), "
        f"and {cost.critical_path / 3600:.3g} hours at least, however many GPUs there are"
    )


def _describe_step(
    node: Node, stored: StoredStep, costs: Costs, ends: Mapping[str, Sequence[str]]
) -> str:
    """Return a step's title, key, state, cost, and the chains that end with it, as markup."""
    colour = COLOURS[stored.state]
    state = f"{stored.state} by {stored.holder.owner}" if stored.holder else stored.state
    title = escape(node.planned.title)
    parts = [f"{title}  [dim]{node.key}[/dim]  [{colour}]{escape(state)}[/{colour}]"]
    if stored.record is None:
        hours = costs.step_gpu_hours(node.planned)
        if hours is None:
            parts.append(f"{images(node.planned):,} images")
        else:
            parts.append(f"{hours:.2g} GPU-hours")
    names = ends.get(node.key, ())
    if names:
        shown = escape(", ".join(names[:SHOWN_NAMES]))
        more = len(names) - SHOWN_NAMES
        parts.append(f"→ {shown} and {more} more" if more > 0 else f"→ {shown}")
    return "  ".join(parts)


def _remarks(tree: StepTree) -> dict[str, list[str]]:
    """Return what is to be said of chains, each with the names of these."""
    found: dict[str, list[str]] = defaultdict(list)
    for plan in tree.chains:
        for remark in remarks(plan.chain):
            found[remark].append(plan.chain.name)
    return found


def _chains_by_last_step(tree: StepTree) -> dict[str, list[str]]:
    """Return the names of the chains that end at each step, by the step's key."""
    found: dict[str, list[str]] = defaultdict(list)
    for plan in tree.chains:
        found[plan.steps[-1].key].append(plan.chain.name)
    return found
