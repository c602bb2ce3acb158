"""Order the steps of a campaign: the ready step with the longest remaining path comes first.

A schedule knows ids, parents and seconds, but no store and no cluster. So the same code runs
campaigns (`orchestrator.campaigns.scheduler`) and simulates thousands of them
(`benchmarks/makespan.py`).

A job is ready the moment its parent is done. No job waits for a level of the tree to be complete.
The longest remaining path comes first because a campaign cannot end before it. Jobs are single
steps and not segments, because between two steps of a segment a more urgent step may become ready.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush


@dataclass(frozen=True)
class Job:
    """A step as a schedule knows it."""

    id: str
    parent: str | None  # the job that must be done before
    seconds: float  # expected; any other unit serves as well


class Schedule:
    """Holds jobs that wait for their parents, are ready, run, are done, or are dropped."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        """Take the jobs.

        Raises:
            ValueError: An id stands twice, a parent is unknown, or jobs wait for each other.
        """
        self.jobs: dict[str, Job] = {}
        self.running: set[str] = set()
        self.done: set[str] = set()
        self.dropped: set[str] = set()  # given up, and all jobs that need them
        self.remaining: dict[str, float] = {}
        self._children: dict[str, list[str]] = {}
        self._ready: list[tuple[float, int, str]] = []
        self._order: dict[str, int] = {}
        self.add(jobs)

    def add(self, jobs: Iterable[Job]) -> None:
        """Take more jobs. A job that waits for a dropped one is dropped.

        Raises:
            ValueError: An id stands twice, a parent is unknown, or jobs wait for each other.
        """
        added: list[Job] = []
        for job in jobs:
            if job.id in self.jobs:
                raise ValueError(f"{job.id!r} stands twice in a schedule")
            self.jobs[job.id] = job
            self._children[job.id] = []
            self._order[job.id] = len(self._order)
            added.append(job)
        for job in added:
            if job.parent is not None:
                if job.parent not in self.jobs:
                    raise ValueError(
                        f"{job.id!r} waits for {job.parent!r}, which is no job of this schedule"
                    )
                self._children[job.parent].append(job.id)
        self.remaining = self._remaining()
        self._ready = sorted(self._rank(id) for _, _, id in self._ready)
        for job in added:
            if job.parent in self.dropped:
                self.dropped.update((job.id, *self.below(job.id)))
            elif job.id not in self.dropped and (job.parent is None or job.parent in self.done):
                self._make_ready(job.id)

    def ready(self) -> Iterator[str]:
        """Return the jobs that may start now, the most urgent first.

        Equally urgent jobs come in the order in which they were given.
        """
        return (id for _, _, id in self._ready)

    def start(self, id: str) -> None:
        """Start a ready job."""
        self._take(id)
        self.running.add(id)

    def finish(self, id: str) -> None:
        """Finish a running job. The jobs that waited for it become ready."""
        self.running.remove(id)
        self.done.add(id)
        for child in self._children[id]:
            if child not in self.dropped:
                self._make_ready(child)

    def drop(self, id: str) -> list[str]:
        """Drop a job that is not done; return the jobs below it, which are dropped with it."""
        if id in self.running:
            self.running.remove(id)
        elif self.jobs[id].parent is None or self.jobs[id].parent in self.done:
            self._take(id)
        below = self.below(id)
        self.dropped.update((id, *below))
        return below

    def below(self, id: str) -> list[str]:
        """Return all jobs that wait for this one, parents before their children."""
        found = [id]
        for parent in found:
            found.extend(self._children[parent])
        return found[1:]

    @property
    def finished(self) -> bool:
        """Return whether nothing runs and nothing is left to run."""
        return len(self.done) + len(self.dropped) == len(self.jobs)

    def _make_ready(self, id: str) -> None:
        insort(self._ready, self._rank(id))

    def _take(self, id: str) -> None:
        index = bisect_left(self._ready, self._rank(id))
        if self._ready[index : index + 1] != [self._rank(id)]:
            raise ValueError(f"{id!r} is not ready")
        del self._ready[index]

    def _rank(self, id: str) -> tuple[float, int, str]:
        return -self.remaining[id], self._order[id], id

    def _remaining(self) -> dict[str, float]:
        """Return the length of the longest path that begins with each job, in seconds."""
        order = [job.id for job in self.jobs.values() if job.parent is None]
        for id in order:
            order.extend(self._children[id])
        if len(order) < len(self.jobs):
            raise ValueError("some jobs of a schedule wait for each other")
        remaining: dict[str, float] = {}
        for id in reversed(order):
            longest = max((remaining[child] for child in self._children[id]), default=0.0)
            remaining[id] = self.jobs[id].seconds + longest
        return remaining


def expected_seconds(schedule: Schedule, machines: int) -> float:
    """Return how long a schedule takes on so many machines, one job on each.

    Nothing of the schedule may be started. Afterwards all of it is finished.
    """
    ends: list[tuple[float, str]] = []  # of running jobs, the earliest first
    now = 0.0
    while not schedule.finished:
        while len(ends) < machines and (id := next(schedule.ready(), None)) is not None:
            schedule.start(id)
            heappush(ends, (now + schedule.jobs[id].seconds, id))
        now, id = heappop(ends)
        schedule.finish(id)
    return now
