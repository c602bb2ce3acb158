"""A trial that Ray kills because the machine is short of memory is lost, and no other suffers.

Ray's own memory monitor kills it, at a threshold a little above what the machine uses now.
"""

import os
import time
from collections.abc import Callable, Iterator

import numpy as np
import psutil
import pytest
import ray

from orchestrator.cluster.connection import connect
from orchestrator.cluster.ray_tune import run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not os.environ.get("STEPCHAIN_SOAK"),
        reason="make soak runs it; what else uses memory meanwhile may decide what is killed",
    ),
    # Ray warns of its own code, and leaves sockets and subprocesses to the garbage collector.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
GIGABYTE = 1e9


class OneAfterTheOther:
    """A source of two jobs that notes how each ended."""

    idle = False

    def __init__(self) -> None:
        self.left = ["hungry", "modest"]
        self.running: str | None = None
        self.messages: list[tuple[str, str]] = []
        self.ends: dict[str, str | None] = {}

    @property
    def finished(self) -> bool:
        return not self.left and self.running is None

    def next(self) -> str | None:
        if self.running or not self.left:
            return None
        self.running = self.left.pop(0)
        return self.running

    def on_message(self, id: str, message: str) -> None:
        self.messages.append((id, message))

    def on_end(self, id: str, lost: str | None = None) -> None:
        self.ends[id] = lost
        self.running = None

    def stop(self) -> None:
        raise AssertionError("nobody interrupts")

    def on_stopped(self) -> None:
        raise AssertionError("every job ends")


def work(spec: str, on_message: Callable[[str], None]) -> None:
    """Say the name of the job; the hungry one then takes memory until it is killed."""
    on_message(spec)
    taken = []
    while spec == "hungry" and len(taken) < 60:
        taken.append(np.ones(int(GIGABYTE) // 80))  # 100 MB
        time.sleep(0.1)


@pytest.fixture
def _monitored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    memory = psutil.virtual_memory()
    threshold = (memory.total - memory.available + 2.5 * GIGABYTE) / memory.total
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{threshold:.3f}")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    connect()
    yield
    ray.shutdown()


@pytest.mark.usefixtures("_monitored")
def test_a_trial_that_is_killed_for_memory_is_tried_again_and_then_given_up() -> None:
    source = OneAfterTheOther()
    specs = {"hungry": "hungry", "modest": "modest"}
    run(source, work, specs.__getitem__, losses=1, as_message=str)
    assert source.messages == [("hungry", "hungry"), ("hungry", "hungry"), ("modest", "modest")]
    assert source.ends["modest"] is None
    assert "memory" in (source.ends["hungry"] or "")
