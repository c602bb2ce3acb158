"""Do several pieces of work side by side, as many at once as the cluster holds."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator.cluster.machines import steps_at_once
from orchestrator.cluster.resources import Resources
from orchestrator.cluster.workers import run_until_done
from orchestrator.store.retries import Retries

if TYPE_CHECKING:
    from training.runtime import Runtime

Result = TypeVar("Result")


def run_side_by_side(
    works: "Sequence[Callable[[Runtime], Result]]", resources: Resources, retries: Retries
) -> Iterator[Result]:
    """Do several pieces of work, as many at once as the cluster holds, and yield the results.

    Call it from the thread that connected to Ray. When the caller stops early, no further piece of
    work begins.

    Args:
        works: Pickled one by one.
        resources: Of the workers that do one of them.
        retries: As `run_until_done` takes them.

    Yields:
        The results as they come.

    Raises:
        WorkersFailed: A piece of work was not finished.
    """
    crew = _Crew(works, lambda work: run_until_done(work, resources, retries))
    try:
        for _ in works:
            # The cluster may have grown or shrunk since the last result.
            crew.resize(steps_at_once(resources))
            yield crew.result()
    finally:
        crew.left.clear()


class _Crew:
    """Threads that do pieces of work, each as long as there is work and room for it."""

    def __init__(self, works: Sequence[Any], do: Callable[[Any], Any]) -> None:
        self.left = deque(works)
        self._do = do
        self._ended: SimpleQueue[tuple[bool, Any]] = SimpleQueue()
        self._lock = threading.Lock()
        self._size = 0
        self._wanted = 0

    def resize(self, wanted: int) -> None:
        """Let so many threads work: start some, or let some leave after their present work."""
        with self._lock:
            self._wanted = wanted
            new = min(wanted - self._size, len(self.left))
            self._size += max(0, new)
        # A process that is interrupted must not wait for its threads.
        for _ in range(new):
            threading.Thread(target=self._work_off, daemon=True).start()

    def result(self) -> Any:
        """Return the next result. Raise what a piece of work raised."""
        finished, result = self._ended.get()
        if not finished:
            raise result
        return result

    def _work_off(self) -> None:
        while work := self._take():
            try:
                self._ended.put((True, self._do(work[0])))
            except Exception as error:  # noqa: BLE001 - raised by `result`, in the caller's thread
                self._ended.put((False, error))

    def _take(self) -> tuple[Any] | None:
        """Return a piece of work in a tuple, None if the thread is to leave."""
        with self._lock:
            if self.left and self._size <= self._wanted:
                return (self.left.popleft(),)
            self._size -= 1
            return None
