"""The chains of a campaign as one tree: steps of equal key are one node, trained once, however many chains want it.

A segment is a run of nodes without branching: what one worker can do from its first step to its last without keeping anybody
waiting. Nothing here looks into a store; `orchestrator.planning.store_state` does, and says what of a tree is there already.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.planning.planner import SPLIT, PlannedChain
from orchestrator.planning.resolver import PlannedStep
from orchestrator.records.schema import DataSource, Scoring


@dataclass(frozen=True)
class Node:
    """A step that chains of the campaign want."""

    key: str
    planned: PlannedStep
    plan: PlannedChain  # of the first chain that wants it
    scorings: tuple[
        tuple[DataSource, Scoring], ...
    ]  # all the ways in which these chains want it scored
    chains: tuple[int, ...]  # which chains of the tree want it
    parent: str | None
    children: tuple[str, ...]


@dataclass(frozen=True)
class Segment:
    """Nodes that follow one another with no branch in between; done from first to last."""

    id: str  # key of its last node
    nodes: tuple[Node, ...]
    parent: str | None  # id of the segment that it grows from


@dataclass(frozen=True)
class StepTree:
    """All chains of a campaign, merged where their steps are equal. There may be several roots."""

    chains: tuple[PlannedChain, ...]
    nodes: dict[str, Node]  # by key, parents first
    segments: tuple[Segment, ...]  # parents first

    @property
    def naive_steps(self) -> int:
        """How many steps would be trained if each chain were trained by itself."""
        return sum(len(plan.steps) for plan in self.chains)


def build_tree(plans: Sequence[PlannedChain]) -> StepTree:
    """Merge chains into a tree."""
    first: dict[str, PlannedChain] = {}
    planned: dict[str, PlannedStep] = {}
    chains: dict[str, list[int]] = {}
    children: dict[str, list[str]] = {}
    scorings: dict[str, dict[tuple[object, ...], tuple[DataSource, Scoring]]] = {}
    for number, plan in enumerate(plans):
        asked = (plan.manifest_digest, SPLIT, plan.chain.evaluation)
        for step in plan.steps:
            if step.key not in planned:
                first[step.key], planned[step.key] = plan, step
                chains[step.key], children[step.key], scorings[step.key] = [], [], {}
                if step.parent is not None:
                    children[step.parent].append(step.key)
            chains[step.key].append(number)
            if asked not in scorings[step.key]:
                scorings[step.key][asked] = plan.source(SPLIT), plan.scoring
    nodes = {
        key: Node(
            key,
            step,
            first[key],
            tuple(scorings[key].values()),
            tuple(chains[key]),
            step.parent,
            tuple(children[key]),
        )
        for key, step in planned.items()
    }
    return StepTree(tuple(plans), nodes, _segments(nodes))


def _segments(nodes: Mapping[str, Node]) -> tuple[Segment, ...]:
    """Cut the tree after every node that has not exactly one child."""
    found: list[Segment] = []
    for node in nodes.values():
        if node.parent is not None and len(nodes[node.parent].children) == 1:
            continue  # it goes on a segment that was begun before
        run = [node]
        while len(run[-1].children) == 1:
            run.append(nodes[run[-1].children[0]])
        found.append(Segment(run[-1].key, tuple(run), node.parent))
    return tuple(found)


def first_steps(plan: PlannedChain, last: int | None) -> PlannedChain:
    """The chain up to step `last`; the whole of it for None or when it has no more steps."""
    if last is None or last + 1 >= len(plan.steps):
        return plan
    return replace(plan, steps=plan.steps[: last + 1], whole=False)
