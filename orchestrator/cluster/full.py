"""Notice that workers wait because other work holds the room of the cluster, and say so once."""

import time
from collections.abc import Callable

from orchestrator.cluster.machines import free_machines
from orchestrator.cluster.resource_words import shares
from orchestrator.cluster.resources import Resources
from orchestrator.store.retries import Retries


def is_full(resources: Resources) -> bool:
    """Return whether no machine has the room of these workers free now."""
    return not free_machines().steps(resources)


class Patience:
    """Says once that workers wait for room which is not free."""

    def __init__(self, resources: Resources, retries: Retries, tell: Callable[[str], None]) -> None:
        self._resources = resources
        self._tell = tell
        self._pause = retries.full_seconds
        self._next = time.monotonic() + self._pause
        self._told = False

    def look(self) -> None:
        """Say that the cluster is full if it has been so for a while. Call it until they start."""
        if self._told or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._pause
        if is_full(self._resources):
            count = self._resources.workers
            workers = f"{count} workers with {shares(self._resources)} each"
            if count == 1:
                workers = f"a worker with {shares(self._resources)}"
            self._tell(
                f"no room is free for {workers}: waiting until other work ends or a machine comes"
            )
            self._told = True
