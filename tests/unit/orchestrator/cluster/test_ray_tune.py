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
from ray.exceptions import OutOfMemoryError
from ray.tune.search import Searcher

from orchestrator.cluster import ray_tune


@pytest.fixture(autouse=True)
def _object_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a handle be what it stands for, because Ray does not run here."""
    monkeypatch.setattr(ray_tune.ray, "put", lambda value: value)
    monkeypatch.setattr(ray_tune.ray, "get", lambda handle: handle)
    monkeypatch.setattr(ray_tune, "forget", lambda handle: None)


def suggest(algorithm: ray_tune._SearchAlgorithm, trial: str) -> dict[str, Any]:
    """Return what Tune is told to run, with the specification read."""
    config = algorithm.suggest(trial)
    assert isinstance(config, dict)
    return config | {"spec": ray_tune._decode(config["spec"])}


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

    def on_end(self, id: str, lost: str | None = None) -> None:
        self.calls.append((id, lost or "done"))
        self.running = None

    idle = False

    def stop(self) -> None:
        self.calls.append(("all", "stop"))

    def on_stopped(self) -> None:
        self.calls.append(("all", "stopped"))


def test_tune_runs_what_the_source_names_and_the_source_gets_its_messages():
    source = TwoJobs()
    algorithm = ray_tune._SearchAlgorithm(source, "spec of {}".format, ray_tune._Stopping())
    assert suggest(algorithm, "t1") == {"job": "first", "spec": "spec of first"}
    assert algorithm.suggest("t2") is None
    algorithm.on_trial_result("t1", {"message": ray_tune._encode("hello"), "training_iteration": 1})
    algorithm.on_trial_complete("t1", {"done": True})
    assert suggest(algorithm, "t3") == {"job": "second", "spec": "spec of second"}
    assert algorithm.suggest("t4") is None  # not finished: the second still runs
    algorithm.on_trial_complete("t3", error=True)  # why it was lost is told afterwards
    algorithm.end("t3", lost="no memory")
    assert algorithm.suggest("t5") == Searcher.FINISHED
    assert source.calls == [("first", "hello"), ("first", "done"), ("second", "no memory")]


def test_a_pickled_search_algorithm_holds_nothing():
    source = TwoJobs()
    source.unpicklable = lambda: None  # pyright: ignore[reportAttributeAccessIssue]
    algorithm = ray_tune._SearchAlgorithm(source, str, ray_tune._Stopping())
    assert b"first" not in pickle.dumps(algorithm)


TOLD = """Failure # 1 (occurred at 2026-01-31_12-00-00)
The actor died because its node has died.
Failure # 2 (occurred at 2026-01-31_12-05-00)

OutOfMemoryError: Task was killed due to the node running low on memory.
Memory on the node was 22 GB / 23 GB.
"""


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (TOLD, "OutOfMemoryError: Task was killed due to the node running low on memory."),
        ("", "Ray does not say why"),
    ],
)
def test_the_last_reason_for_a_loss_is_told(told: str, reason: str):
    assert ray_tune._reason(told) == reason


def test_what_a_trial_raises_becomes_a_message(monkeypatch: pytest.MonkeyPatch):
    reports: list[dict[str, str]] = []
    monkeypatch.setattr(ray_tune.tune, "report", reports.append)

    def work(spec: str, on_message: Callable[[str], None]) -> None:
        on_message(spec)
        raise RuntimeError("unforeseen")

    spec = ray_tune._encode("the spec of a")
    ray_tune._trial({"job": "a", "spec": spec}, work, "failed: {}".format)
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
        algorithm = ray_tune._SearchAlgorithm(source, str, stopping)
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


def test_what_ray_raises_in_a_trial_is_a_loss_and_no_message(monkeypatch: pytest.MonkeyPatch):
    def lost(spec: object, on_message: Callable[[Any], None]) -> None:
        raise OutOfMemoryError("the head is short of memory")

    monkeypatch.setattr(ray_tune.tune, "report", lambda message: pytest.fail("it was told"))
    with pytest.raises(OutOfMemoryError):
        ray_tune._trial({"spec": ray_tune._encode("spec")}, lost, str)
