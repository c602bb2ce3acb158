"""The desk of a running campaign: which step is handed out next, and what became of each.

It hands out the most urgent step that is ready (`orchestrator.campaigns.priority`), and rather one that nobody is at: when two campaigns
share steps, each trains what the other does not, and a trial that has to wait for another's step takes no place of one that
could train. What does not fit into the budget is not begun. A step that fails takes along those that would have grown from it,
and no other.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from orchestrator.campaigns.priority import Job, Schedule, expected_seconds
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
from orchestrator.planning.store_state import StoredStep
from orchestrator.records import layout
from orchestrator.records.repository import Repository
from orchestrator.store.base import Store, StoreError
from orchestrator.store.lease import Lease, read_lease

log = logging.getLogger(__name__)

LOOKED_AT = 8  # ready steps whose leases are read before one is handed out that another holds
LOOK_SECONDS = 5.0  # for which what was read of a lease counts

# published: by this run; reused: by another, before or meanwhile; stopped: too far behind the best.
State = Literal["waiting", "running", "published", "reused", "failed", "not run", "stopped"]


@dataclass(frozen=True)
class Limits:
    """How much a run of a campaign may do."""

    max_gpu_hours: float | None = None
    max_concurrent: int | None = (
        None  # steps that train at once; None: as many as the cluster holds
    )
    retries: int = 1  # of a step that fails, and of a trial whose process is lost
    stop_behind: float | None = (
        None  # mIoU behind the best at the same step at which a chain is not continued, 0 to 1
    )


@dataclass
class StepOutcome:
    """What has become of a step so far."""

    state: State = "waiting"
    reason: str = ""
    attempts: list[str] = field(default_factory=list)  # that this run began, the newest last
    begun: float = 0.0  # when the newest one was, by the desk's clock


class Scheduler:
    """Decides for `orchestrator.cluster.ray_tune`.

    `notify(what, key)` hears of "attempt", "published", "reused", "failed", "dropped" and of words ("said: ...").
    `score(node)` gives the mIoU of a published node; it is asked under `stop_behind` only.
    """

    def __init__(
        self,
        tree: StepTree,
        standings: Mapping[str, StoredStep],
        store: Store,
        costs: Costs,
        limits: Limits,
        *,
        at_once: int,
        owner: str,
        notify: Callable[[str, str], None],
        score: Callable[[Node], float | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.fates = {
            key: StepOutcome("reused" if standings[key].state == "published" else "waiting")
            for key in tree.nodes
        }
        self.spent = 0.0  # GPU-hours of what ended
        self.at_once = at_once
        self._tree, self._store, self._costs, self._limits, self._owner = (
            tree,
            store,
            costs,
            limits,
            owner,
        )
        self._notify, self._score, self._clock = notify, score, clock
        self._stopping = False
        self._results: dict[str, StepPublished | TrialFailed] = {}  # of running trials
        self._waiting: set[str] = set()  # running steps that wait for somebody else's lease
        self._looked: dict[str, tuple[float, str]] = {}  # when, and what was seen
        self._best: dict[
            object, tuple[float, str]
        ] = {}  # mIoU and title of the best chain, by what can be compared
        left = {key: node for key, node in tree.nodes.items() if self.fates[key].state == "waiting"}
        self._estimates = {
            key: costs.overhead
            if standings[key].state == "to score"
            else costs.seconds(node.planned)
            for key, node in left.items()
        }
        known = [seconds for seconds in self._estimates.values() if seconds is not None]
        weights = (
            self._estimates
            if len(known) == len(left)
            else {key: images(node.planned) for key, node in left.items()}
        )
        self.schedule = Schedule(
            Job(key, node.parent if node.parent in left else None, float(weights[key] or 0))
            for key, node in left.items()
        )
        if limits.stop_behind is not None:
            for key in [key for key in tree.nodes if key not in left]:
                self._compare(tree.nodes[key])

    @property
    def finished(self) -> bool:
        return self.schedule.finished

    def next(self) -> str | None:
        """The step to start now."""
        if self._stopping or self._full():
            return None
        while (key := self._choice()) is not None and self._look(key) == "published":
            self.schedule.start(key)
            self._publish(key, "reused")  # there may be more urgent ones now
        if key is None and not self.schedule.running:
            for left in tuple(self.schedule.ready()):
                self._drop(
                    left,
                    "not run",
                    f"the budget of {self._limits.max_gpu_hours:g} GPU-hours is spent",
                )
        if key is None:
            return None
        if self._look(key) == "taken":
            self._waiting.add(key)
        self.schedule.start(key)
        self.fates[key].state = "running"
        return key

    def on_message(self, id: str, message: Message) -> None:
        """Take a message of a running trial."""
        match message:
            case Notice(text):
                self._notify(f"said: {text}", id)
            case WaitingForLease():
                self._waiting.add(id)
            case AttemptStarted(attempt):
                self._waiting.discard(id)
                self._charge(id)
                self.fates[id].attempts.append(attempt)
                self.fates[id].begun = self._clock()
                self._notify("attempt", id)
            case StepPublished() | TrialFailed():
                self._results[id] = message

    def on_end(self, id: str, lost: bool) -> None:
        """Take note that a trial is over."""
        self._charge(id)
        self._waiting.discard(id)
        result = self._results.pop(id, None)
        if isinstance(result, StepPublished) and not lost:
            mine = result.attempt in self.fates[id].attempts
            self._publish(id, "published" if mine else "reused")
        elif isinstance(result, TrialFailed):
            self._drop(id, "failed", result.reason)
        else:
            times = self._limits.retries + 1
            reason = f"its process was lost {times} times; Ray's logs may say why"
            self._drop(id, "failed", reason)

    def stop(self) -> None:
        """Take the leases of what runs: workers keep a checkpoint when they find theirs lost, and their trials wait for us."""
        self._stopping = True
        for key in self._leased():
            try:
                Lease(self._store, layout.step_lease(key), self._owner).seize()
            except StoreError as error:
                log.warning("step %s is stopped without a checkpoint: %s", key, error)

    @property
    def idle(self) -> bool:
        """Whether no step that is running trains."""
        return all(
            key in self._waiting or not self.fates[key].attempts for key in self.schedule.running
        )

    def on_stopped(self) -> None:
        """Give back the leases of what ran, or whoever comes next would wait for them to go stale."""
        for key in self._leased():
            try:
                self._store.delete(layout.step_lease(key))
            except StoreError as error:  # it will run out
                log.warning("could not release the lease of step %s: %s", key, error)

    def _leased(self) -> Iterator[str]:
        """The running steps whose leases this run holds."""
        for key in self.schedule.running:
            try:
                lease = read_lease(self._store, layout.step_lease(key))
            except StoreError as error:
                log.warning("could not read the lease of step %s: %s", key, error)
                continue
            if lease and lease.owner == self._owner:
                yield key

    def seconds_left(self) -> float | None:
        """Expected time to the end, None when there is a step of which nothing is known."""
        left = self._estimates.keys() - self.schedule.done - self.schedule.dropped
        jobs = []
        for key in (key for key in self._estimates if key in left):
            seconds, parent = self._estimates[key], self.schedule.jobs[key].parent
            if seconds is None:
                return None
            if self.fates[key].state == "running":
                seconds = max(0.0, seconds - self._elapsed(key))
            jobs.append(Job(key, parent if parent in left else None, seconds))
        return expected_seconds(Schedule(jobs), self.at_once)

    def _full(self) -> bool:
        """Whether as many steps run as may; as many again may wait for others."""
        running = len(self.schedule.running)
        return running - len(self._waiting) >= self.at_once or running >= 2 * self.at_once

    def _choice(self) -> str | None:
        """The most urgent step that is ready and affordable; one that somebody else is at only if there is no other."""
        affordable = islice(filter(self._affordable, self.schedule.ready()), LOOKED_AT)
        first = None
        for key in affordable:
            if self._look(key) != "taken":
                return key
            first = first or key
        return first

    def _look(self, key: str) -> str:
        """Whether a ready step is "published" by now, "taken" by somebody else, or "free"."""
        now = self._clock()
        if key not in self._looked or now - self._looked[key][0] > LOOK_SECONDS:
            try:
                self._looked[key] = now, self._seen(self._tree.nodes[key])
            except StoreError:  # the trial will meet it too, try again, and tell
                return "free"
        return self._looked[key][1]

    def _seen(self, node: Node) -> str:
        repository = Repository(self._store)
        record = repository.find_step(node.key)
        if record:
            scored = (repository.find_evaluation(record, each) for _, each in node.scorings)
            return "published" if all(scored) else "free"
        lease = read_lease(self._store, layout.step_lease(node.key))
        return "taken" if lease and not lease.expired else "free"

    def _publish(self, key: str, state: Literal["published", "reused"]) -> None:
        self.fates[key].state = state
        self.schedule.finish(key)
        if self._limits.stop_behind is not None:
            self._compare(self._tree.nodes[key])
        self._notify(state, key)

    def _drop(self, key: str, state: State, reason: str) -> None:
        """A step will not come to exist, nor will any that would have grown from it."""
        title = self._tree.nodes[key].planned.title
        self.fates[key].state, self.fates[key].reason = state, reason
        for below in self.schedule.drop(key):
            fate = self.fates[below]
            fate.state, fate.reason = (
                ("not run", f"{title} failed") if state == "failed" else (state, reason)
            )
        self._notify("failed" if state == "failed" else "dropped", key)

    def _compare(self, node: Node) -> None:
        """Drop what would grow from a node that is too far behind the best at its step."""
        score = self._score(node)
        alike = node.planned.step.task.groups, node.plan.manifest_digest, node.plan.chain.evaluation
        if score is None:
            return
        best, name = self._best.get(alike, (score, ""))
        if score >= best:
            self._best[alike] = score, node.plan.chain.name
        elif best - score > (self._limits.stop_behind or 0.0):
            reason = f"{100 * (best - score):.1f} points of mIoU behind {name!r} after step {node.planned.index}"
            for child in node.children:
                if self.fates[child].state == "waiting":
                    self._drop(child, "stopped", reason)

    def _affordable(self, key: str) -> bool:
        limit = self._limits.max_gpu_hours
        if limit is None:
            return True
        expected = [
            max(self._estimates[id] or 0.0, self._elapsed(id)) for id in self.schedule.running
        ]
        used = self.spent + self._costs.gpu_hours(sum(expected))
        return used < limit and used + self._costs.gpu_hours(self._estimates[key] or 0.0) <= limit

    def _elapsed(self, key: str) -> float:
        """Seconds since the newest attempt of this run began."""
        return self._clock() - self.fates[key].begun if self.fates[key].attempts else 0.0

    def _charge(self, key: str) -> None:
        """Count what the attempt that is over has taken."""
        self.spent += self._costs.gpu_hours(self._elapsed(key))
