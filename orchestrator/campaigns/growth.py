"""Let a searched campaign grow by one sample after another while it runs.

The scheduler asks for a sample when there is room and nothing else could use it. So a searcher is
asked as late as possible, when it knows most.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.campaigns.outcome import StepOutcome
from orchestrator.planning.chain import Chain
from orchestrator.planning.planner import PlannedChain, Planner
from orchestrator.planning.search import Search, Values, publish_sample
from orchestrator.planning.search_plan import first_own_step
from orchestrator.planning.step_tree import Node, StepTree, build_tree
from orchestrator.planning.store_state import StepState, StoredStep, look_up_steps
from training.config import InputError

if TYPE_CHECKING:
    from orchestrator.cluster.tune_searchers import PastSample

# States of a step of a sample after which the next sample may be asked for. Before, that sample
# would only wait for the same step 0 as this one.
BEGUN = (StepState.RUNNING, StepState.PUBLISHED, StepState.REUSED, StepState.FAILED)


class Grown(NamedTuple):
    """A campaign's steps with those of one more sample."""

    tree: StepTree
    stored: Mapping[str, StoredStep]  # states of the new steps


class _Sample(NamedTuple):
    values: Values
    plans: list[PlannedChain]  # of its chains, one of each seed


class Growth:
    """Names the samples of a search: those in the store, then new ones of the searcher's."""

    def __init__(
        self,
        search: Search,
        planner: Planner,
        tree: StepTree,
        outcomes: Mapping[str, StepOutcome],
        score: Callable[[PlannedChain, str], float | None],
    ) -> None:
        """Take the samples so far, and write the first one if it is new.

        Args:
            search: With the samples whose chains the tree holds.
            planner: Plans the chains of new samples.
            tree: The campaign's steps. The scheduler makes it grow.
            outcomes: The scheduler's.
            score: Returns the mIoU of a published step of a chain.

        Raises:
            InputError: Another run has named another first sample since the campaign was planned.
            StoreError: The store does not answer.
        """
        self._search = search
        self._planner = planner
        self._tree = tree
        self._outcomes = outcomes
        self._score = score
        self._samples: list[_Sample] = []
        self._plans: dict[Chain, PlannedChain] = {plan.chain: plan for plan in tree.chains}
        self._first_own = first_own_step(search, planner)
        self._exhausted = False
        self._waits_with: list[PastSample] = []  # what the searcher knew when it named nothing
        if len(search.samples) == 1:
            self._write(0, search.samples[0], scored=())
        for values in search.samples:
            self._take(values)

    @property
    def possible(self) -> bool:
        """Return whether the campaign can grow now or later, without anything else ending."""
        return (
            not self._exhausted
            and len(self._samples) < self._search.count
            and any(map(self._has_begun, self._samples[-1].plans))
        )

    def grow(self) -> Grown | None:
        """Return the tree with the next sample, or None if there is none now.

        Raises:
            InputError: The searcher fails.
            StoreError: The store does not answer.
        """
        if not self.possible:
            return None
        past = [self._past(sample) for sample in self._samples]
        if past == self._waits_with:
            return None
        values = self._search.name_next(past)
        if not isinstance(values, Mapping):
            running = any(sample.outcome == "running" for sample in past)
            self._exhausted = values is not None or not running
            self._waits_with = past
            return None
        scored = [number for number, each in enumerate(past) if each.outcome == "scored"]
        self._plan(values)  # what cannot be planned is not written
        values = self._write(len(past), values, scored)
        plans = self._take(values)
        tree = build_tree([*self._tree.chains, *plans])
        new = {key: node for key, node in tree.nodes.items() if key not in self._outcomes}
        return Grown(tree, self._look_up(new))

    def _write(self, number: int, values: Values, scored: Iterable[int]) -> Values:
        """Write a sample; return that of another run if it was first."""
        record = publish_sample(self._planner.store, self._search, number, values, tuple(scored))
        if number == 0 and record.values != values:
            raise InputError(
                "another run has named another first sample since this one was planned: "
                "run the campaign again"
            )
        return record.values

    def _take(self, values: Values) -> list[PlannedChain]:
        """Add a sample; return its chains that no earlier sample has."""
        plans = self._plan(values)
        new = [plan for plan in plans if plan.chain not in self._plans]
        self._plans |= {plan.chain: plan for plan in new}
        self._samples.append(_Sample(values, [self._plans[plan.chain] for plan in plans]))
        return new

    def _plan(self, values: Values) -> list[PlannedChain]:
        return [self._planner.plan(chain) for chain in self._search.chains(values)]

    def _look_up(self, nodes: Mapping[str, Node]) -> Mapping[str, StoredStep]:
        """Return the states of new steps. The store is asked for those that could be published."""
        tree = StepTree((), {})
        for key, node in nodes.items():
            # Steps that other chains want too are known, and count as roots here.
            parent = node.parent if node.parent in nodes else None
            tree.nodes[key] = replace(node, parent=parent)
        return look_up_steps(tree, self._planner.store)

    def _has_begun(self, plan: PlannedChain) -> bool:
        own = plan.steps[min(self._first_own, len(plan.steps) - 1)]
        return self._outcomes[own.key].state in BEGUN

    def _past(self, sample: _Sample) -> "PastSample":
        """Return what has become of a sample."""
        from orchestrator.cluster.tune_searchers import PastSample

        values, plans = sample
        states = {self._outcomes[step.key].state for plan in plans for step in plan.steps}
        if all(state.exists for state in states):
            return PastSample(values, "scored", self._scores(plans))
        if StepState.RUNNING in states or StepState.WAITING in states:
            return PastSample(values, "running")
        if StepState.STOPPED in states and StepState.FAILED not in states:
            return PastSample(values, "stopped", self._scores(plans))
        return PastSample(values, "failed")

    def _scores(self, plans: list[PlannedChain]) -> tuple[float, ...]:
        """Return the mean mIoU over the seeds after each step that all of them have."""
        scores = []
        for steps in zip(*(plan.steps for plan in plans), strict=False):
            pairs = zip(plans, steps, strict=True)
            if not all(self._outcomes[step.key].state.exists for step in steps):
                break
            scores.append(fmean(self._score(plan, step.key) or 0.0 for plan, step in pairs))
        return tuple(scores)
