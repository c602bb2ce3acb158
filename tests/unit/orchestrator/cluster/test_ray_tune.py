"""The search algorithm between Ray Tune and a source of jobs, and signals.

Tune itself runs in an integration test.
"""

import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ray.tune.search import Searcher

from orchestrator.cluster import ray_tune


class TwoJobs:
    """A source of two jobs, the second after the first."""

    def __init__(self) -> None:
        self.left = ["first", "second"]
        self.running: str | None = None
        self.calls: list[tuple[str, Any]] = []

    @property
    def finished(self) -> bool:
        return not self.left and self.running is None

    def next(self) -> str | None:
        if self.running is None and self.left:
            self.running = self.left.pop(0)
            return self.running
        return None

    def on_message(self, id: str, message: str) -> None:
        self.calls.append((id, message))

    def on_end(self, id: str, lost: bool) -> None:
        self.calls.append((id, "lost" if lost else "done"))
        self.running = None

    idle = False

    def stop(self) -> None:
        self.calls.append(("all", "stop"))

    def on_stopped(self) -> None:
        self.calls.append(("all", "stopped"))


def test_tune_runs_what_the_source_names_and_the_source_gets_its_messages():
    source = TwoJobs()
    algorithm = ray_tune._SearchAlgorithm(source, ray_tune._Stopping())
    assert algorithm.suggest("t1") == {"job": "first"}
    assert algorithm.suggest("t2") is None
    algorithm.on_trial_result("t1", {"message": ray_tune._encode("hello"), "training_iteration": 1})
    algorithm.on_trial_complete("t1", {"done": True})
    assert algorithm.suggest("t3") == {"job": "second"}
    assert algorithm.suggest("t4") is None  # not finished: the second still runs
    algorithm.on_trial_complete("t3", error=True)
    assert algorithm.suggest("t5") == Searcher.FINISHED
    assert source.calls == [("first", "hello"), ("first", "done"), ("second", "lost")]


def test_a_pickled_search_algorithm_holds_nothing():
    source = TwoJobs()
    source.unpicklable = lambda: None  # pyright: ignore[reportAttributeAccessIssue]
    assert b"first" not in pickle.dumps(ray_tune._SearchAlgorithm(source, ray_tune._Stopping()))


def test_what_a_trial_raises_becomes_a_message(monkeypatch: pytest.MonkeyPatch):
    reports: list[dict[str, str]] = []
    monkeypatch.setattr(ray_tune.tune, "report", reports.append)
    monkeypatch.setattr(ray_tune.ray, "get", lambda algorithmle: algorithmle)

    def work(spec: str, on_message: Callable[[str], None]) -> None:
        on_message(spec)
        raise RuntimeError("unforeseen")

    ray_tune._trial({"job": "a"}, work, {"a": "the spec of a"}, "failed: {}".format)  # pyright: ignore[reportArgumentType]
    sent, failed = (ray_tune._decode(report["message"]) for report in reports)
    assert sent == "the spec of a"
    assert failed.startswith("failed: Traceback")
    assert "RuntimeError: unforeseen" in failed


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@pytest.fixture
def tune_ended(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """Return a function that handles signals as Tune does, and returns what ended it."""
    before = [signal.getsignal(each) for each in SIGNALS]
    ended = []

    def start() -> list[str]:
        signal.signal(signal.SIGUSR1, lambda number, frame: ended.append("tune"))  # as Tune does
        return ended

    yield start
    assert [signal.getsignal(each) for each in SIGNALS] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_source_and_ends_tune_once_it_is_idle(
    number: signal.Signals, tune_ended: Callable[[], list[str]]
):
    source = TwoJobs()
    with ray_tune._signals(source, 25), pytest.raises(KeyboardInterrupt):  # Tune does not run yet
        os.kill(os.getpid(), number)
    with ray_tune._signals(source, 25) as stopping:
        ended = tune_ended()
        algorithm = ray_tune._SearchAlgorithm(source, stopping)
        algorithm.suggest("t1")
        os.kill(os.getpid(), number)
        algorithm.on_trial_result("t1", {"message": ray_tune._encode("message")})
        assert ended == []
        source.idle = True
        algorithm.on_trial_result("t1", {"message": ray_tune._encode("message")})
        assert ended == ["tune"]
        with pytest.raises(KeyboardInterrupt):  # the second one waits for nothing
            os.kill(os.getpid(), signal.SIGINT)
    assert [call for call in source.calls if call[0] == "all"] == [("all", "stop")] * 2


def test_tune_is_ended_when_a_busy_source_takes_too_long(tune_ended: Callable[[], list[str]]):
    with ray_tune._signals(TwoJobs(), grace_seconds=0.05):
        ended = tune_ended()
        os.kill(os.getpid(), signal.SIGTERM)
        assert ended == []
        while not ended:
            time.sleep(0.01)
