"""Which steps of a campaign fit on a cluster that grows and shrinks, and how long to wait."""

import time
from collections import Counter
from collections.abc import Callable, Mapping

from orchestrator.cluster.give import Kind
from orchestrator.cluster.packing import Machines
from orchestrator.cluster.resource_words import shares
from orchestrator.cluster.resources import Resources
from orchestrator.store.retries import DEFAULT_RETRIES


class Room:
    """Says which steps fit, and looks at the cluster again every few seconds."""

    def __init__(
        self,
        look: Callable[[], Machines],
        resources: Mapping[Kind, Resources],
        most: int | None = None,
        look_seconds: float = DEFAULT_RETRIES.scheduler_look_seconds,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Look for the first time.

        Args:
            look: Returns the machines of the cluster, and those that it can add.
            resources: What the steps of each kind are given.
            most: At most so many steps run at once.
            look_seconds: How long what was seen counts.
            clock: Returns seconds.
        """
        self._look = look
        self._resources = resources
        self._most = most
        self._look_seconds = look_seconds
        self._clock = clock
        self._looked = clock()
        self._machines = look()
        self._held: dict[tuple[tuple[Kind, int], ...], bool] = {}  # what was found of counts

    def at_once(self) -> int:
        """Return how many steps may run at once if all are of the smallest kind, at least 1."""
        machines = self._now()
        room = max((machines.steps(each) for each in self._resources.values()), default=1)
        return max(1, room if self._most is None else min(room, self._most))

    def holds(self, steps: Mapping[Kind, int]) -> bool:
        """Return whether so many steps of each kind fit at once.

        Where machines may come that cannot be seen, one step fits.
        """
        machines = self._now()
        total = sum(steps.values())
        if self._most is not None and total > self._most:
            return False
        if total <= 1 and not machines.growth.known:
            return True
        counts = tuple(sorted(steps.items()))
        if counts not in self._held:
            wanted = [self._resources[kind] for kind, count in counts for _ in range(count)]
            alike = all(each == wanted[0] for each in wanted)
            held = total <= machines.steps(wanted[0]) if alike else machines.hold(wanted)
            self._held[counts] = held
        return self._held[counts]

    def wanted(self, kinds: Mapping[Kind, int]) -> str:
        """Return what steps of these kinds need, for people."""
        needs = [
            f"{kind} steps ({each.workers} worker{'s' * (each.workers > 1)} with {shares(each)})"
            for kind, each in self._resources.items()
            if kind in kinds
        ]
        return ", ".join(needs)

    def _now(self) -> Machines:
        """Return the machines as they were seen a few seconds ago at most."""
        now = self._clock()
        if now - self._looked > self._look_seconds:
            self._machines = self._look()
            self._looked = now
            self._held.clear()
        return self._machines


class RoomWait:
    """How long nothing of a campaign has run because no machine can hold its next steps."""

    def __init__(
        self, room: Room, seconds: float, tell: Callable[[str], None], clock: Callable[[], float]
    ) -> None:
        """Begin without waiting. `seconds`: how long to wait. `tell`: shows a sentence."""
        self.room = room
        self._seconds = seconds
        self._tell = tell
        self._clock = clock
        self._since: float | None = None

    def reason_to_give_up(self, ready: Counter[Kind]) -> str | None:
        """Return why the ready steps are given up, or None while it is worth waiting.

        Call it whenever nothing runs and none of the ready steps fits.
        """
        now = self._clock()
        needed = f"no machine of the cluster has room for {self.room.wanted(ready)}"
        if self._since is None:
            self._since = now
            minutes = self._seconds / 60
            self._tell(f"{needed}: waiting up to {minutes:g} minutes for a machine to come back")
        if now - self._since < self._seconds:
            return None
        return f"{needed}, and none came back in {self._seconds / 60:g} minutes"

    def end(self) -> None:
        """Say that the wait is over, if there was one."""
        if self._since is not None:
            self._since = None
            self._tell("a machine is back: the campaign goes on")
