"""Which step of a campaign comes next: the one on the longest path that is still to go, among those whose parent is done.

A schedule is bookkeeping alone: it knows ids, parents and seconds, no store and no cluster, so that the same code runs
campaigns (`orchestrator.campaigns.scheduler`) and simulations of thousands of them (`benchmarks/makespan.py`). Nothing waits for a level of
the tree to be complete: a job is ready the moment its parent is done. The longest remaining path comes first because, whatever
else is done early, a campaign cannot end before it. Jobs are single steps, not whole segments: between two steps of a segment
something more urgent may have become ready.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush


@dataclass(frozen=True)
class Job:
    """What a schedule must know of a step."""

    id: str
    parent: str | None  # the job that must be done before; None where nothing is waited for
    seconds: float  # expected, or whatever else says how jobs compare


class Schedule:
    """Jobs that wait for their parents, are ready, run, are done, or will not be run. Each id is in one of these states."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        """Raises ValueError for an id that stands twice, an unknown parent, and jobs that wait for each other."""
        self.jobs: dict[str, Job] = {}
        for job in jobs:
            if job.id in self.jobs:
                raise ValueError(f"{job.id!r} stands twice in a schedule")
            self.jobs[job.id] = job
        self.running: set[str] = set()
        self.done: set[str] = set()
        self.dropped: set[str] = (
            set()
        )  # failed or otherwise given up, and all that would have grown from them
        self._children: dict[str, list[str]] = {id: [] for id in self.jobs}
        for job in self.jobs.values():
            if job.parent is not None:
                if job.parent not in self.jobs:
                    raise ValueError(
                        f"{job.id!r} waits for {job.parent!r}, which is no job of this schedule"
                    )
                self._children[job.parent].append(job.id)
        self.remaining = self._remaining()
        self._ready: list[tuple[float, int, str]] = []
        self._order = {id: number for number, id in enumerate(self.jobs)}
        for job in self.jobs.values():
            if job.parent is None:
                self._make_ready(job.id)

    def ready(self) -> Iterator[str]:
        """Jobs that may start now, the most urgent first; equally urgent ones in the order they were given."""
        return (id for _, _, id in self._ready)

    def start(self, id: str) -> None:
        """A ready job is handed out."""
        self._take(id)
        self.running.add(id)

    def finish(self, id: str) -> None:
        """A running job is done: what waited for it is ready."""
        self.running.remove(id)
        self.done.add(id)
        for child in self._children[id]:
            if child not in self.dropped:
                self._make_ready(child)

    def drop(self, id: str) -> list[str]:
        """A job that is not done will not be: returns the jobs below it, which are dropped with it, in order."""
        if id in self.running:
            self.running.remove(id)
        elif self.jobs[id].parent is None or self.jobs[id].parent in self.done:
            self._take(id)
        below = self.below(id)
        self.dropped.update((id, *below))
        return below

    def below(self, id: str) -> list[str]:
        """All jobs that wait for this one, parents before their children."""
        found = [id]
        for parent in found:
            found.extend(self._children[parent])
        return found[1:]

    @property
    def finished(self) -> bool:
        """Whether nothing runs and nothing is left to run."""
        return len(self.done) + len(self.dropped) == len(self.jobs)

    def _make_ready(self, id: str) -> None:
        insort(self._ready, self._rank(id))

    def _take(self, id: str) -> None:
        place = bisect_left(self._ready, self._rank(id))
        if self._ready[place : place + 1] != [self._rank(id)]:
            raise ValueError(f"{id!r} is not ready")
        del self._ready[place]

    def _rank(self, id: str) -> tuple[float, int, str]:
        return -self.remaining[id], self._order[id], id

    def _remaining(self) -> dict[str, float]:
        """Seconds from the start of each job to the end of the longest path that begins with it."""
        order = [job.id for job in self.jobs.values() if job.parent is None]
        for id in order:
            order.extend(self._children[id])
        if len(order) < len(self.jobs):
            raise ValueError("some jobs of a schedule wait for each other")
        remaining: dict[str, float] = {}
        for id in reversed(order):
            remaining[id] = self.jobs[id].seconds + max(
                (remaining[child] for child in self._children[id]), default=0.0
            )
        return remaining


def expected_seconds(schedule: Schedule, machines: int) -> float:
    """How long a schedule of which nothing is started yet takes on so many machines, one job on each; it is finished after."""
    ends: list[tuple[float, str]] = []  # of what runs, the earliest first
    now = 0.0
    while not schedule.finished:
        while len(ends) < machines and (id := next(schedule.ready(), None)) is not None:
            schedule.start(id)
            heappush(ends, (now + schedule.jobs[id].seconds, id))
        now, id = heappop(ends)
        schedule.finish(id)
    return now
