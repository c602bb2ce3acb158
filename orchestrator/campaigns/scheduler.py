"""Decide which step of a campaign is trained next, and keep the outcome of each step.

The most urgent ready step comes first (`orchestrator.campaigns.priority`). Steps that another
campaign trains come last, because a trial that only waits must not occupy a slot that could train.
A step that does not fit into the budget is not started. When a step fails, the steps that need it
are given up, and all others are trained.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

from orchestrator.campaigns.choice import Choice, step_kind_of
from orchestrator.campaigns.estimates import estimate_steps, seconds_left, to_jobs
from orchestrator.campaigns.events import ChainDone, Event, StepDone, StepGivenUp, StepStarted
from orchestrator.campaigns.growth import Growth
from orchestrator.campaigns.limits import Budget, Limits
from orchestrator.campaigns.outcome import StepOutcome, first_outcome
from orchestrator.campaigns.priority import Schedule
from orchestrator.campaigns.room import RoomWait
from orchestrator.campaigns.stopping import Stopping, in_order_of_publication
from orchestrator.campaigns.trial_leases import release_leases, seize_leases
from orchestrator.cluster.give import Kind
from orchestrator.execution.messages import (
    AttemptStarted,
    Message,
    Notice,
    StepPublished,
    TrialFailed,
    WaitingForLease,
    WaitingForWorkers,
    WorkersStarted,
)
from orchestrator.planning.cost import Costs
from orchestrator.planning.step_tree import Node, StepTree
from orchestrator.planning.store_state import StepState, StoredStep
from orchestrator.records.repository import Repository
from orchestrator.store.base import StoreError
from orchestrator.store.retries import DEFAULT_RETRIES
from training.config import InputError


class Scheduler:
    """Names the steps for which `orchestrator.cluster.ray_tune` starts trials.

    All its methods are called from one thread. Other threads may read `outcomes` and ask for
    `seconds_left`.
    """

    def __init__(
        self,
        tree: StepTree,
        stored: Mapping[str, StoredStep],
        repository: Repository,
        costs: Costs,
        limits: Limits,
        *,
        room: RoomWait,
        owner: str,
        on_event: Callable[[Event], None],
        stopping: Stopping | None = None,
        look_seconds: float = DEFAULT_RETRIES.scheduler_look_seconds,
        growth: Callable[[Mapping[str, StepOutcome]], Growth] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Plan the steps that are not published.

        Args:
            tree: The campaign's steps.
            stored: Their states, as `look_up_steps` found them.
            repository: The records.
            costs: How long steps take.
            limits: How much this run may do.
            room: Says which steps fit at once, and how long to wait when none does.
            owner: Owner of the leases of this run's trials.
            on_event: Receives each event.
            stopping: Says which chains are not continued.
            look_seconds: How long the looked-up state of a ready step counts.
            growth: Takes the outcomes, and returns what a searched campaign grows by.
            clock: Returns seconds.
        """
        self.outcomes = {key: first_outcome(stored[key]) for key in tree.nodes}
        self.problems: list[str] = []
        self._room_wait = room
        self._room = room.room
        self._tree = tree
        self._repository = repository
        self._limits = limits
        self._owner = owner
        self._on_event = on_event
        self._costs = costs
        self._to_end: set[str] | None = None  # once the run is stopped: trials that held leases
        self._leased: frozenset[str] = frozenset()  # the steps whose leases were taken then
        self._spent = False  # the budget
        self._results: dict[str, StepPublished | TrialFailed] = {}  # of running trials
        self._waiting: set[str] = set()  # running steps that wait for the lease of another campaign
        self._estimates = estimate_steps(tree, stored, self.outcomes, costs)
        self.budget = Budget(
            limits.max_gpu_hours, costs, self._estimates, partial(step_kind_of, tree=tree), clock
        )
        self.schedule = Schedule(to_jobs(tree, self._estimates, self._estimates))
        self._choice = Choice(
            tree, repository, self.schedule, self.budget, self._room, look_seconds, clock
        )
        self._stopping_rule = stopping
        for node in in_order_of_publication(tree.nodes.values(), stored):
            if node.key not in self._estimates:
                self._stop_if_behind(node)
        self._growth = growth(self.outcomes) if growth else None

    @property
    def finished(self) -> bool:
        """Return whether nothing runs and nothing is left to run."""
        grows = self._growth is not None and self._growth.possible and not self._spent
        return self.schedule.finished and not grows

    @property
    def idle(self) -> bool:
        """Return whether no running trial would lose work if stopped now."""
        return not (self._to_end or set()) & (self.schedule.running - self._waiting)

    def next(self) -> str | None:
        """Return the step to start now, or None while no step is ready."""
        working = len(self.schedule.running) - len(self._waiting)
        if self._to_end is not None or working >= self._room.at_once():
            return None
        key = self._choose_unpublished()
        while (key is None or self._choice.state(key) == StepState.RUNNING) and self._grow():
            key = self._choose_unpublished()
        if key is None:
            if self.schedule.running:
                return None
            if self._choice.crowded:
                self._wait_for_room()
            else:
                self._give_up_unaffordable()
            return None
        if self._choice.state(key) == StepState.RUNNING:
            # A trial that only waits is cheap, but takes a place that Ray gives to trials.
            if len(self._waiting) >= self._room.at_once():
                return None
            self._waiting.add(key)
        self._room_wait.end()
        self.schedule.start(key)
        self.outcomes[key].state = StepState.RUNNING
        return key

    def on_message(self, id: str, message: Message) -> None:
        """Handle a message of a running trial."""
        match message:
            case Notice():
                self._on_event(message)
            case WaitingForLease():
                self.budget.end(id)  # of an attempt that lost its lease
                self._waiting.add(id)
            case WaitingForWorkers():
                self.budget.end(id)  # of an attempt that failed
                self._waiting.discard(id)
            case AttemptStarted(attempt):
                self._waiting.discard(id)
                self._results.pop(id, None)  # of a process that was lost
                self.budget.end(id)
                self.outcomes[id].attempts.append(attempt)
                self._on_event(StepStarted(id))
            case WorkersStarted():
                self.budget.begin(id)
            case StepPublished() | TrialFailed():
                self._results[id] = message

    def on_end(self, id: str, lost: str | None = None) -> None:
        """Handle the end of a trial; `lost` says why if its process died too often."""
        self.budget.end(id)
        self._waiting.discard(id)
        result = self._results.pop(id, None)
        if isinstance(result, StepPublished):
            is_own = result.attempt in self.outcomes[id].attempts
            self._finish(id, StepState.PUBLISHED if is_own else StepState.REUSED)
        elif isinstance(result, TrialFailed):
            self._give_up(id, StepState.FAILED, result.reason)
        elif self._to_end is not None:
            self._waiting.add(id)  # it was stopped
        else:
            count = f"{self._limits.retries + 1} times" if self._limits.retries else "once"
            reason = f"its process was lost {count}: {lost or 'Ray does not say why'}"
            self._give_up(id, StepState.FAILED, reason)

    def stop(self) -> None:
        """Start nothing more, and take the leases of running trials, so that they end."""
        self._leased = frozenset(self.schedule.running)
        self._to_end = seize_leases(self._repository.store, self._leased, self._owner)

    def on_stopped(self) -> None:
        """Release the leases of the trials, which have ended, so that nothing waits for them."""
        release_leases(self._repository.store, self._leased or self.schedule.running, self._owner)

    def seconds_left(self) -> float | None:
        """Return the expected time to the end, or None if a step's time is not known."""
        return seconds_left(
            self.schedule, self._estimates, self.outcomes, self.budget.elapsed, self._room.at_once()
        )

    def _choose_unpublished(self) -> str | None:
        """Choose a step, once everything that others published is finished."""
        while key := self._choice.next(self._waiting):
            if self._choice.state(key) != StepState.PUBLISHED:
                break
            self.schedule.start(key)
            # Afterwards there may be more urgent steps, so the choice is made again.
            self._finish(key, StepState.REUSED)
        return key

    def _grow(self) -> bool:
        """Take the steps of one more sample of a searched campaign, if there is one now."""
        if self._growth is None or self._spent or self._choice.crowded:
            return False
        try:
            grown = self._growth.grow()
        except (StoreError, InputError) as error:
            if not self.schedule.running:
                raise
            if isinstance(error, InputError):
                # The running steps go on, and the campaign ends after them.
                self._on_event(Notice(f"the search names no more samples: {error}"))
                self.problems.append(str(error))
                self._growth = None
            return False
        if grown is None:
            return False
        self._add(*grown)
        return True

    def _add(self, tree: StepTree, stored: Mapping[str, StoredStep]) -> None:
        """Take a tree that has grown, and the states of its new steps."""
        chains = len(self._tree.chains)
        self.outcomes |= {key: first_outcome(step) for key, step in stored.items()}
        estimates = estimate_steps(tree, stored, self.outcomes, self._costs)
        self._tree.become(tree)
        self._estimates |= estimates
        self.schedule.add(to_jobs(tree, estimates, self._estimates))
        for key in stored:
            if key in self.schedule.dropped:
                self._set(key, StepState.NOT_RUN, "a step before it was given up")
        for node in in_order_of_publication((tree.nodes[key] for key in stored), stored):
            if self.outcomes[node.key].state.exists:
                self._stop_if_behind(node)
        for number, plan in enumerate(tree.chains[chains:], start=chains):
            if all(self.outcomes[step.key].state.exists for step in plan.steps):
                self._on_event(ChainDone(number))

    def _wait_for_room(self) -> None:
        """Wait for a machine when nothing runs and nothing fits; at last give up what is ready."""
        ready = tuple(self.schedule.ready())
        kinds: Counter[Kind] = Counter(step_kind_of(key, self._tree) for key in ready)
        reason = self._room_wait.reason_to_give_up(kinds)
        for key in ready if reason else ():
            self._give_up(key, StepState.FAILED, str(reason))

    def _finish(self, key: str, state: StepState) -> None:
        self.outcomes[key].state = state
        self.schedule.finish(key)
        self._stop_if_behind(self._tree.nodes[key])
        self._on_event(StepDone(key, state))

    def _give_up(self, key: str, state: StepState, reason: str) -> None:
        """Give up a step and all steps that need it."""
        self._set(key, state, reason)
        if state == StepState.FAILED:
            state, reason = StepState.NOT_RUN, f"{self._tree.nodes[key].planned.title} failed"
        for below in self.schedule.drop(key):
            self._set(below, state, reason)
        self._on_event(StepGivenUp(key))

    def _set(self, key: str, state: StepState, reason: str) -> None:
        self.outcomes[key].state = state
        self.outcomes[key].reason = reason

    def _give_up_unaffordable(self) -> None:
        """Give up the ready steps when nothing runs and none of them fits into the budget."""
        limit = self._limits.max_gpu_hours
        if limit is None:
            return
        self._spent = True
        reason = f"the budget of {limit:g} GPU-hours is spent"
        for key in tuple(self.schedule.ready()):
            self._give_up(key, StepState.NOT_RUN, reason)

    def _stop_if_behind(self, node: Node) -> None:
        """Give up the children of a published step whose chain is not continued."""
        if self._stopping_rule is None:
            return
        try:
            reason = self._stopping_rule.reason(node)
        except StoreError as error:
            title = node.planned.title
            self._on_event(Notice(f"the score of {title} stops no chain: {error}"))
            return
        for child in node.children if reason else ():
            if self.outcomes[child].state == StepState.WAITING:
                self._give_up(child, StepState.STOPPED, reason)
