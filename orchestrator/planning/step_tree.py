"""Merge the chains of a campaign into one tree of steps.

Steps with equal keys are one node, which is trained once, however many chains want it. Nothing here
reads a store: `orchestrator.planning.store_state` looks up which nodes exist.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from orchestrator.planning.planner import SPLIT, PlannedChain
from orchestrator.planning.resolver import PlannedStep
from orchestrator.records.schema import DataSource, Scoring


@dataclass(frozen=True)
class Node:
    """A step that chains of the campaign want."""

    key: str
    planned: PlannedStep
    plan: PlannedChain  # of the first chain that wants the step
    scorings: tuple[tuple[DataSource, Scoring], ...]
    """All the ways in which the chains want the step scored."""
    chains: tuple[int, ...]  # indexes of the chains that want the step
    parent: str | None
    children: tuple[str, ...]


@dataclass(frozen=True)
class Segment:
    """Nodes that follow one another without a branch in between, from first to last."""

    id: str  # key of its last node
    nodes: tuple[Node, ...]
    parent: str | None  # id of the segment before it


@dataclass
class StepTree:
    """All chains of a campaign, merged where their steps are equal. It may have several roots.

    The tree of a searched campaign grows while it runs.
    """

    chains: tuple[PlannedChain, ...]
    nodes: dict[str, Node]  # by key, parents first

    @property
    def naive_steps(self) -> int:
        """Return how many steps would be trained if each chain were trained by itself."""
        return sum(len(plan.steps) for plan in self.chains)

    def become(self, grown: "StepTree") -> None:
        """Take the chains and nodes of a tree that holds more."""
        # Another thread may look up the chains that a node names, so these are there first.
        self.chains = grown.chains
        self.nodes = grown.nodes


@dataclass
class _Draft:
    """What is known of a node while the chains are merged."""

    planned: PlannedStep
    plan: PlannedChain
    scorings: dict[tuple[object, ...], tuple[DataSource, Scoring]] = field(default_factory=dict)
    chains: list[int] = field(default_factory=list)
    children: list[str] = field(default_factory=list)


def build_tree(plans: Sequence[PlannedChain]) -> StepTree:
    """Merge chains into a tree."""
    drafts: dict[str, _Draft] = {}
    for number, plan in enumerate(plans):
        asked = (plan.manifest_digest, SPLIT, plan.chain.evaluation)
        for step in plan.steps:
            if step.key not in drafts:
                drafts[step.key] = _Draft(step, plan)
                if step.parent is not None:
                    drafts[step.parent].children.append(step.key)
            draft = drafts[step.key]
            draft.chains.append(number)
            if asked not in draft.scorings:
                draft.scorings[asked] = plan.source(SPLIT), plan.scoring
    nodes = {
        key: Node(
            key,
            draft.planned,
            draft.plan,
            tuple(draft.scorings.values()),
            tuple(draft.chains),
            draft.planned.parent,
            tuple(draft.children),
        )
        for key, draft in drafts.items()
    }
    return StepTree(tuple(plans), nodes)


def split_segments(tree: StepTree) -> tuple[Segment, ...]:
    """Cut the tree after every node that has not exactly one child; parents come first."""
    found: list[Segment] = []
    for node in tree.nodes.values():
        # A node whose parent has no other child continues the parent's segment.
        if node.parent is not None and len(tree.nodes[node.parent].children) == 1:
            continue
        run = [node]
        while len(run[-1].children) == 1:
            run.append(tree.nodes[run[-1].children[0]])
        found.append(Segment(run[-1].key, tuple(run), node.parent))
    return tuple(found)


def first_steps(plan: PlannedChain, last: int | None) -> PlannedChain:
    """Return the chain up to step `last`. None, or more steps than it has, returns all of it."""
    if last is None or last + 1 >= len(plan.steps):
        return plan
    return replace(plan, steps=plan.steps[: last + 1], whole=False)
