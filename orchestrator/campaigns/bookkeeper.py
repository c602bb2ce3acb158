"""Record what a running campaign publishes, and show it to people and to MLflow.

Trials publish steps. The driver does everything that follows, on a thread of its own, so that no
GPU waits for it. The record of a chain is published as soon as its last step is. What cannot be
read now is tried again. What cannot be read in the end becomes a problem that the outcome names.
The steps themselves are safe in the store.
"""

import threading
from collections.abc import Mapping
from queue import SimpleQueue
from typing import Self

from orchestrator.campaigns.events import ChainDone, Event, StepDone, StepGivenUp, StepStarted
from orchestrator.campaigns.live_view import LiveView
from orchestrator.campaigns.outcome import ChainOutcome, StepOutcome
from orchestrator.execution.context import RunContext
from orchestrator.execution.messages import Notice
from orchestrator.execution.progress_display import read_progress
from orchestrator.execution.scoreboard import Reporter, Scoreboard
from orchestrator.planning.planner import PlannedChain
from orchestrator.planning.step_tree import Node, StepTree
from orchestrator.planning.store_state import StepState
from orchestrator.records.attempts import read_curves
from orchestrator.records.publish import publish_chain
from orchestrator.records.results import load_chains
from orchestrator.store.base import StoreError, is_local


class Bookkeeper:
    """Follows a campaign from a thread. When its context is left, everything is recorded."""

    def __init__(
        self,
        tree: StepTree,
        outcomes: Mapping[str, StepOutcome],
        context: RunContext,
        view: LiveView,
        scoreboard: Scoreboard,
        events: SimpleQueue[Event],
    ) -> None:
        """Note which chains are complete already.

        Args:
            tree: The campaign's steps.
            outcomes: The scheduler's, which change while the campaign runs.
            context: The store and the tracker.
            view: Shows people what happens.
            scoreboard: Scores published steps.
            events: What the scheduler reports.
        """
        self.chains: dict[int, ChainOutcome] = {}  # finished ones, by their index in the tree
        self.problems: list[str] = []
        self._tree = tree
        self._outcomes = outcomes
        self._context = context
        self._view = view
        self._scoreboard = scoreboard
        self._reporter = Reporter(context.tracker, scoreboard)
        self._events = events
        # How much of each piece of an attempt's curves was read, by attempt.
        self._seen: dict[str, dict[str, int]] = {}
        self._stop = threading.Event()
        self._crash: Exception | None = None
        self._thread = threading.Thread(target=self._follow, name="bookkeeper", daemon=True)
        self._completed: set[int] = set()  # chains whose completion is an event by now
        for number in range(len(tree.chains)):
            self._complete(number)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._crash:
            raise self._crash
        self.problems.extend(str(error) for _, error in self._handle_events())

    def _follow(self) -> None:
        """Handle events and look at running steps; this is what the thread runs."""
        period = self._context.retries.look_seconds(is_local(self._context.store))
        try:
            while not self._stop.wait(period):
                for event, _ in self._handle_events():
                    self._events.put(event)
                for key, outcome in tuple(self._outcomes.items()):
                    if outcome.state == StepState.RUNNING:
                        self._look(key, outcome)
                self._view.refresh()
        except Exception as error:  # noqa: BLE001 - `__exit__` raises it again
            self._crash = error

    def _handle_events(self) -> list[tuple[Event, StoreError]]:
        """Handle all events; return those that the store refused, with its errors."""
        refused = []
        while not self._events.empty():
            event = self._events.get()
            try:
                self._handle(event)
            except StoreError as error:
                refused.append((event, error))
        return refused

    def _handle(self, event: Event) -> None:
        """Report an event, then show it: one that cannot be reported now is handled again."""
        match event:
            case Notice(text):
                self._view.report(text)
            case StepStarted(step):
                node = self._tree.nodes[step]
                self._reporter.step_started(node.plan, node.planned)
                self._view.step_started(node)
            case StepDone(step, state):
                self._step_done(self._tree.nodes[step], state)
            case StepGivenUp(step):
                self._step_given_up(self._tree.nodes[step])
            case ChainDone(number):
                self._chain_done(number)

    def _step_done(self, node: Node, state: StepState) -> None:
        scored = self._scoreboard.find(node.plan, node.key)
        self._reporter.step_published(node.plan, node.key)
        for number in node.chains:
            plan = self._tree.chains[number]
            if not self._complete(number):
                self._reporter.chain_progressed(plan, self._published_steps(plan))
        self._view.step_done(node, state, scored.scores)

    def _step_given_up(self, node: Node) -> None:
        self._reporter.step_failed(node.key)
        stopped = self._outcomes[node.key].state == StepState.STOPPED
        report = self._reporter.chain_stopped if stopped else self._reporter.chain_failed
        for number in node.chains:
            report(self._tree.chains[number])
        self._view.step_given_up(node)

    def _chain_done(self, number: int) -> None:
        """Publish the record of a chain whose steps are all published."""
        plan = self._tree.chains[number]
        steps = [self._scoreboard.find(plan, step.key) for step in plan.steps]
        if plan.whole:
            records = [step.record for step in steps]
            evaluations = [step.evaluation for step in steps]
            record = publish_chain(self._context.store, plan.chain, records, evaluations)
            (result,) = load_chains(self._scoreboard.repository, [record], with_curves=False)
            self._reporter.chain_published(plan, result)
        outcome = ChainOutcome(plan.chain.name, self._state(plan), scores=steps[-1].scores)
        self.chains[number] = outcome
        self._view.chain_done(outcome)

    def _state(self, plan: PlannedChain) -> StepState:
        """Return PUBLISHED if this run trained any step of the chain, else REUSED."""
        states = {self._outcomes[step.key].state for step in plan.steps}
        return StepState.PUBLISHED if StepState.PUBLISHED in states else StepState.REUSED

    def _complete(self, number: int) -> bool:
        """Return whether all steps of a chain exist; the first time, this becomes an event.

        Several steps of a chain may have ended before the first of them is looked at.
        """
        plan = self._tree.chains[number]
        if len(self._published_steps(plan)) < len(plan.steps):
            return False
        if number not in self._completed:
            self._completed.add(number)
            self._events.put(ChainDone(number))
        return True

    def _published_steps(self, plan: PlannedChain) -> list[str]:
        return [step.key for step in plan.steps if self._outcomes[step.key].state.exists]

    def _look(self, key: str, outcome: StepOutcome) -> None:
        """Read how far a running step is, and report its new curves."""
        if not outcome.attempts:
            self._view.progress[key] = {"stage": "wait"}
            return
        store = self._context.store
        tracker = self._context.tracker
        attempt = outcome.attempts[-1]
        try:
            if tracker:
                for rows in read_curves(store, key, attempt, self._seen.setdefault(attempt, {})):
                    tracker.curves(key, rows)
            self._view.progress[key] = read_progress(store, key, attempt)
        except StoreError:
            self._view.progress[key] = {"stage": "the store does not answer"}
