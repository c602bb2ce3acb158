"""What a running campaign writes down: the records of its chains, what MLflow shows, what people see.

Trials publish steps; the driver does all that comes of it, on a thread of its own, so that no GPU waits for bookkeeping. The
record of a chain is published as soon as its last step is. What the thread cannot read now it tries again; what it still cannot
in the end becomes a problem that the outcome names, since the steps themselves are safe in the store.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, NamedTuple, Self

from orchestrator.campaigns.live_view import LiveView
from orchestrator.campaigns.scheduler import State, StepOutcome
from orchestrator.execution.context import RunContext
from orchestrator.execution.progress_display import read_progress
from orchestrator.planning.planner import PlannedChain
from orchestrator.planning.step_tree import Node, StepTree
from orchestrator.records import layout
from orchestrator.records.attempts import read_curves
from orchestrator.records.publish import publish_chain
from orchestrator.records.repository import Repository
from orchestrator.records.results import load_chains, load_step
from orchestrator.records.schema import EvaluationRecord, StepRecord
from orchestrator.store.base import NotFound, Store, StoreError, is_local
from training.config import EvaluationConfig
from training.metrics import Convention, Scores

THERE = ("published", "reused")  # fates of steps that exist


class Scored(NamedTuple):
    """A published step and how it scored."""

    record: StepRecord
    evaluation: EvaluationRecord
    scores: Scores


@dataclass(frozen=True)
class ChainOutcome:
    """What has become of a chain."""

    name: str
    state: State
    reason: str = ""
    scores: Scores | None = None  # after its last step


class Scoreboard:
    """Scores of published steps under one convention, each read once."""

    def __init__(self, store: Store, convention: Convention) -> None:
        self.repository = Repository(store)
        self._convention = convention
        self._found: dict[
            tuple[str, str, EvaluationConfig, tuple[tuple[str, ...], ...]], Scored
        ] = {}

    def find(self, plan: PlannedChain, key: str) -> Scored:
        """How a step of this chain scored. Raises StoreError; NotFound while it is not published and scored."""
        asked = key, plan.manifest_digest, plan.chain.evaluation, plan.chain.scenario.groups
        if asked not in self._found:
            record = self.repository.step(key)
            evaluation = self.repository.find_evaluation(record, plan.scoring)
            if evaluation is None:
                raise NotFound(layout.evaluations_folder(key), self.repository.store.uri)
            groups = plan.chain.scenario.groups
            step = load_step(self.repository, groups, key, evaluation.key)
            self._found[asked] = Scored(record, evaluation, step.scores(self._convention))
        return self._found[asked]


class Bookkeeper:
    """Follows a campaign from a thread: leave it as a context manager, and all that happened is written down."""

    def __init__(
        self,
        tree: StepTree,
        fates: Mapping[str, StepOutcome],
        place: RunContext,
        view: LiveView,
        board: Scoreboard,
        events: SimpleQueue,
    ) -> None:
        """`events`: pairs (what, key) as `Desk` notifies them."""
        self.chains: dict[int, ChainOutcome] = {}  # that are finished, by their number in the tree
        self.problems: list[str] = []
        self._tree, self._fates, self._place, self._view, self._board = (
            tree,
            fates,
            place,
            view,
            board,
        )
        self._events = events
        self._runs: dict[int, Any] = {}  # of chains: the tracker's handles
        self._told: set[str] = set()  # steps that MLflow knows of
        self._seen: dict[str, dict[str, int]] = {}  # how much of an attempt's curves was read
        self._stop = threading.Event()
        self._crash: Exception | None = None
        self._thread = threading.Thread(target=self._follow, name="chronicle", daemon=True)
        for number, plan in enumerate(tree.chains):
            if self._complete(plan):
                events.put(("chain", str(number)))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._crash:
            raise self._crash
        self.problems.extend(str(error) for _, _, error in self._write_down())

    def _follow(self) -> None:
        """The thread."""
        try:
            period = self._place.retries.look_seconds(is_local(self._place.store))
            while not self._stop.wait(period):
                for what, key, _ in self._write_down():
                    self._events.put((what, key))
                for key, fate in tuple(self._fates.items()):
                    if fate.state == "running":
                        self._look(key, fate)
                self._view.refresh()
        except Exception as error:  # noqa: BLE001 - raised where the campaign is driven
            self._crash = error

    def _write_down(self) -> list[tuple[str, str, StoreError]]:
        """Write down what has happened; returns what could not be, and what the store says of it."""
        left = []
        while not self._events.empty():
            what, key = self._events.get()
            try:
                self._happened(what, key)
            except StoreError as error:
                left.append((what, key, error))
        return left

    def _happened(self, what: str, key: str) -> None:
        if what.startswith("said: "):
            self._view.say(what.removeprefix("said: "))
        elif what == "chain":
            self._finish(int(key))
        elif what == "attempt":
            self._begun(self._tree.nodes[key])
        elif what in THERE:
            self._published(self._tree.nodes[key], what)
        else:
            self._given_up(self._tree.nodes[key])

    def _begun(self, node: Node) -> None:
        self._view.began(node)
        if self._place.tracker:
            run = self._chain_run(node.chains[0])
            self._place.tracker.step_started(node.planned, node.plan.source("train"), run)

    def _published(self, node: Node, how: str) -> None:
        scored = self._board.find(node.plan, node.key)
        self._view.published(node, how, scored.scores)
        self._tell(node.plan, node.key, node.chains[0])
        for number in node.chains:
            plan = self._tree.chains[number]
            if self._complete(plan):
                self._events.put(("chain", str(number)))
            elif self._place.tracker and number in self._runs:
                steps = [
                    self._board.find(plan, step.key)
                    for step in plan.steps
                    if self._fates[step.key].state in THERE
                ]
                self._place.tracker.chain_progressed(
                    self._runs[number],
                    [step.record for step in steps],
                    [step.scores for step in steps],
                    steps[-1].evaluation.class_names,
                )

    def _given_up(self, node: Node) -> None:
        self._view.given_up(node)
        if self._place.tracker:
            self._place.tracker.step_failed(node.key)
            for number in node.chains:
                if number in self._runs:
                    self._place.tracker.chain_failed(self._runs.pop(number))

    def _finish(self, number: int) -> None:
        """Publish the record of a chain whose steps are all there."""
        plan = self._tree.chains[number]
        steps = [self._board.find(plan, step.key) for step in plan.steps]
        fate = ChainOutcome(plan.chain.name, self._how(plan), scores=steps[-1].scores)
        if plan.whole:
            record = publish_chain(
                self._place.store,
                plan.chain,
                [step.record for step in steps],
                [step.evaluation for step in steps],
            )
            (result,) = load_chains(self._board.repository, [record])
            if self._place.tracker:
                for step in plan.steps:
                    self._tell(plan, step.key, number)
                self._place.tracker.chain_finished(result, self._place.convention)
        self.chains[number] = fate
        self._view.finished(fate)

    def _how(self, plan: PlannedChain) -> State:
        return (
            "published"
            if any(self._fates[step.key].state == "published" for step in plan.steps)
            else "reused"
        )

    def _tell(self, plan: PlannedChain, key: str, number: int) -> None:
        """Let MLflow know of a published step, once."""
        if self._place.tracker is None or key in self._told:
            return
        scored = self._board.find(plan, key)
        curves = self._board.repository.curves(scored.record)
        names, run = scored.evaluation.class_names, self._chain_run(number)
        self._place.tracker.step_finished(scored.record, scored.scores, names, curves, run)
        self._told.add(key)

    def _chain_run(self, number: int) -> Any:
        """Return the tracker's handle of a chain, begun when first asked for."""
        if number not in self._runs:
            assert self._place.tracker
            plan = self._tree.chains[number]
            self._runs[number] = self._place.tracker.chain_started(plan.chain, plan.steps)
        return self._runs[number]

    def _complete(self, plan: PlannedChain) -> bool:
        return all(self._fates[step.key].state in THERE for step in plan.steps)

    def _look(self, key: str, fate: StepOutcome) -> None:
        """See how far a running step is."""
        if not fate.attempts:
            self._view.progress[key] = {"stage": "wait"}
            return
        store, attempt = self._place.store, fate.attempts[-1]
        seen = self._seen.setdefault(layout.attempt_folder(key, attempt), {})
        try:
            if self._place.tracker:
                for rows in read_curves(store, key, attempt, seen):
                    self._place.tracker.curves(key, rows)
            self._view.progress[key] = read_progress(store, key, attempt)
        except StoreError:
            self._view.progress[key] = {"stage": "the store does not answer"}
