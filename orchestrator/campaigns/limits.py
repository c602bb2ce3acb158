"""Limit how much a run of a campaign does, and count the GPU-hours that it spends."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from orchestrator.cluster.give import Kind
from orchestrator.planning.cost import Costs


@dataclass(frozen=True)
class Limits:
    """How much a run of a campaign may do."""

    max_gpu_hours: float | None = None
    max_concurrent: int | None = None
    """Steps that train at once. None means as many as the cluster holds."""
    retries: int = 1
    """Of a step that fails, and of a trial whose process is lost."""
    stop_behind: float | None = None
    """A chain is not continued if it is so much mIoU, 0 to 1, behind the best at the same step."""
    asha: float | None = None
    """Only one in so many chains is continued at each rung of successive halving."""


class Budget:
    """Counts the GPU-hours that a run spends, and decides which steps it can still pay for."""

    def __init__(
        self,
        limit: float | None,
        costs: Costs,
        estimates: Mapping[str, float | None],
        kind: Callable[[str], Kind],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to count.

        Args:
            limit: GPU-hours; None means no limit.
            costs: Convert seconds to GPU-hours.
            estimates: Expected seconds of each step, None where nothing is known.
            kind: Returns the kind of a step, which decides what it is given.
            clock: Returns seconds.
        """
        self.spent = 0.0  # GPU-hours of attempts that ended
        self._limit = limit
        self._costs = costs
        self._estimates = estimates
        self._kind = kind
        self._clock = clock
        self._begun: dict[str, float] = {}  # when the running attempt at each step began

    def begin(self, step: str) -> None:
        """Record that an attempt at the step begins. An earlier attempt of this run is over."""
        self.end(step)
        self._begun[step] = self._clock()

    def end(self, step: str) -> None:
        """Charge the attempt at the step, which is over, if there was one."""
        self.spent += self._hours(step, self.elapsed(step))
        self._begun.pop(step, None)

    def elapsed(self, step: str) -> float:
        """Return the seconds since the running attempt at the step began, 0 without one."""
        return self._clock() - self._begun[step] if step in self._begun else 0.0

    def affords(self, step: str, running: Iterable[str]) -> bool:
        """Return whether the step fits into what the running steps will leave."""
        if self._limit is None:
            return True
        used = self.spent
        for key in running:
            used += self._hours(key, max(self._estimates[key] or 0.0, self.elapsed(key)))
        wanted = self._hours(step, self._estimates[step] or 0.0)
        return used < self._limit and used + wanted <= self._limit

    def _hours(self, step: str, seconds: float) -> float:
        return self._costs.gpu_hours(seconds, self._kind(step))
