"""Decide which step of a campaign is trained next, and keep the outcome of each step.

The most urgent ready step comes first (`orchestrator.campaigns.priority`). Steps that another
campaign trains come last, because a trial that only waits must not occupy a slot that could train.
A step that does not fit into the budget is not started. When a step fails, the steps that need it
are given up, and all others are trained.
"""

import time
from collections.abc import Callable, Mapping

from orchestrator.campaigns.events import Event, StepDone, StepGivenUp, StepStarted
from orchestrator.campaigns.limits import BestScores, Budget, Limits
from orchestrator.campaigns.outcome import StepOutcome
from orchestrator.campaigns.priority import Job, Schedule, expected_seconds
from orchestrator.campaigns.trial_leases import release_leases, seize_leases
from orchestrator.execution.messages import (
    AttemptStarted,
    Message,
    Notice,
    StepPublished,
    TrialFailed,
    WaitingForLease,
)
from orchestrator.planning.cost import Costs, images
from orchestrator.planning.step_tree import Node, StepTree
from orchestrator.planning.store_state import StepState, StoredStep, look_up_step
from orchestrator.records.repository import Repository
from orchestrator.store.base import StoreError
from orchestrator.store.retries import DEFAULT_RETRIES

# Ready steps that are looked up before a step that another campaign trains is started.
CANDIDATES = 8


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
        at_once: int,
        owner: str,
        on_event: Callable[[Event], None],
        score: Callable[[Node], float | None],
        look_seconds: float = DEFAULT_RETRIES.scheduler_look_seconds,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Plan the steps that are not published.

        Args:
            tree: The campaign's steps.
            stored: Their states, as `look_up_steps` found them.
            repository: The records.
            costs: How long steps take.
            limits: How much this run may do.
            at_once: How many steps train at once.
            owner: Owner of the leases of this run's trials.
            on_event: Receives each event.
            score: Returns the mIoU of a published step. It is asked only under `stop_behind`.
            look_seconds: How long the looked-up state of a ready step counts.
            clock: Returns seconds.
        """
        self.outcomes = {key: StepOutcome() for key in tree.nodes}
        for key, outcome in self.outcomes.items():
            if stored[key].state == StepState.PUBLISHED:
                outcome.state = StepState.REUSED
        self.at_once = at_once
        self._tree = tree
        self._repository = repository
        self._limits = limits
        self._owner = owner
        self._on_event = on_event
        self._score = score
        self._look_seconds = look_seconds
        self._clock = clock
        self._stopping = False
        self._results: dict[str, StepPublished | TrialFailed] = {}  # of running trials
        self._waiting: set[str] = set()  # running steps that wait for the lease of another campaign
        self._looked_up: dict[str, tuple[float, StepState]] = {}  # when, and the state
        left = [key for key, outcome in self.outcomes.items() if not outcome.state.exists]
        self._estimates = {key: _expected(tree.nodes[key], stored[key], costs) for key in left}
        self.budget = Budget(limits.max_gpu_hours, costs, self._estimates, clock)
        self.schedule = Schedule(_jobs(tree, self._estimates))
        self._best = None if limits.stop_behind is None else BestScores(limits.stop_behind)
        for key, node in tree.nodes.items():
            if key not in self._estimates:
                self._stop_if_behind(node)

    @property
    def finished(self) -> bool:
        """Return whether nothing runs and nothing is left to run."""
        return self.schedule.finished

    @property
    def idle(self) -> bool:
        """Return whether no running trial would lose work if stopped now."""
        return all(
            key in self._waiting or not self.outcomes[key].attempts for key in self.schedule.running
        )

    def next(self) -> str | None:
        """Return the step to start now, or None while no step is ready."""
        if self._stopping or self._is_full():
            return None
        while (key := self._choose()) is not None and self._state(key) == StepState.PUBLISHED:
            self.schedule.start(key)
            # Afterwards there may be more urgent steps, so the choice is made again.
            self._finish(key, StepState.REUSED)
        if key is None:
            if not self.schedule.running:
                self._give_up_unaffordable()
            return None
        if self._state(key) == StepState.RUNNING:
            self._waiting.add(key)
        self.schedule.start(key)
        self.outcomes[key].state = StepState.RUNNING
        return key

    def on_message(self, id: str, message: Message) -> None:
        """Handle a message of a running trial."""
        match message:
            case Notice():
                self._on_event(message)
            case WaitingForLease():
                self._waiting.add(id)
            case AttemptStarted(attempt):
                self._waiting.discard(id)
                self.budget.begin(id)
                self.outcomes[id].attempts.append(attempt)
                self._on_event(StepStarted(id))
            case StepPublished() | TrialFailed():
                self._results[id] = message

    def on_end(self, id: str, lost: bool) -> None:
        """Handle the end of a trial; `lost` if its process died too often."""
        self.budget.end(id)
        self._waiting.discard(id)
        result = self._results.pop(id, None)
        if isinstance(result, StepPublished) and not lost:
            is_own = result.attempt in self.outcomes[id].attempts
            self._finish(id, StepState.PUBLISHED if is_own else StepState.REUSED)
        elif isinstance(result, TrialFailed):
            self._give_up(id, StepState.FAILED, result.reason)
        else:
            times = self._limits.retries + 1
            reason = f"its process was lost {times} times; Ray's logs may say why"
            self._give_up(id, StepState.FAILED, reason)

    def stop(self) -> None:
        """Start nothing more, and take the leases of the running trials.

        A worker that loses its lease writes a checkpoint and exits. Its trial then waits for the
        lease, which this run holds.
        """
        self._stopping = True
        seize_leases(self._repository.store, self.schedule.running, self._owner)

    def on_stopped(self) -> None:
        """Release the leases of the trials, which have ended, so that nothing waits for them."""
        release_leases(self._repository.store, self.schedule.running, self._owner)

    def seconds_left(self) -> float | None:
        """Return the expected time to the end, or None if a step's time is not known."""
        left = self._estimates.keys() - self.schedule.done - self.schedule.dropped
        jobs = []
        for key, seconds in self._estimates.items():
            if key not in left:
                continue
            if seconds is None:
                return None
            if self.outcomes[key].state == StepState.RUNNING:
                seconds = max(0.0, seconds - self.budget.elapsed(key))
            parent = self.schedule.jobs[key].parent
            jobs.append(Job(key, parent if parent in left else None, seconds))
        return expected_seconds(Schedule(jobs), self.at_once)

    def _is_full(self) -> bool:
        """Return whether as many steps run as may. As many again may wait for leases."""
        running = len(self.schedule.running)
        return running - len(self._waiting) >= self.at_once or running >= 2 * self.at_once

    def _choose(self) -> str | None:
        """Return the most urgent affordable step, preferably one that no other campaign trains."""
        candidates: list[str] = []
        for key in self.schedule.ready():
            if len(candidates) == CANDIDATES:
                break
            if self.budget.affords(key, self.schedule.running):
                if self._state(key) != StepState.RUNNING:
                    return key
                candidates.append(key)
        return candidates[0] if candidates else None

    def _state(self, key: str) -> StepState:
        """Return the state of a ready step in the store. It may be a few seconds old."""
        now = self._clock()
        if key not in self._looked_up or now - self._looked_up[key][0] > self._look_seconds:
            try:
                state = look_up_step(self._tree.nodes[key], self._repository).state
            except StoreError:
                # The trial will try again, and report the store's error.
                return StepState.TO_TRAIN
            self._looked_up[key] = now, state
        return self._looked_up[key][1]

    def _finish(self, key: str, state: StepState) -> None:
        self.outcomes[key].state = state
        self.schedule.finish(key)
        self._stop_if_behind(self._tree.nodes[key])
        self._on_event(StepDone(key, state))

    def _give_up(self, key: str, state: StepState, reason: str) -> None:
        """Give up a step and all steps that need it."""
        self._set(key, state, reason)
        failed = state == StepState.FAILED
        title = self._tree.nodes[key].planned.title
        for below in self.schedule.drop(key):
            if failed:
                self._set(below, StepState.NOT_RUN, f"{title} failed")
            else:
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
        reason = f"the budget of {limit:g} GPU-hours is spent"
        for key in tuple(self.schedule.ready()):
            self._give_up(key, StepState.NOT_RUN, reason)

    def _stop_if_behind(self, node: Node) -> None:
        """Give up the children of a published step that is too far behind the best one."""
        score = self._score(node) if self._best else None
        if self._best is None or score is None:
            return
        reason = self._best.reason_to_stop(node, score)
        if reason is None:
            return
        for child in node.children:
            if self.outcomes[child].state == StepState.WAITING:
                self._give_up(child, StepState.STOPPED, reason)


def _expected(node: Node, stored: StoredStep, costs: Costs) -> float | None:
    """Return the seconds that a step will take, or None if they are not known."""
    if stored.state == StepState.TO_SCORE:
        return costs.overhead
    return costs.seconds(node.planned)


def _jobs(tree: StepTree, estimates: Mapping[str, float | None]) -> list[Job]:
    """Return the steps as jobs, weighed by their images if the time of one is not known."""
    known = None not in estimates.values()
    jobs = []
    for key, seconds in estimates.items():
        node = tree.nodes[key]
        weight = seconds if known and seconds is not None else images(node.planned)
        parent = node.parent if node.parent in estimates else None
        jobs.append(Job(key, parent, float(weight)))
    return jobs
