"""What Ray Tune asks of a search algorithm, and what it is told; Tune itself runs in an integration test."""

import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ray.tune.search import Searcher

from orchestrator.cluster import ray_tune


class Clerk:
    """A desk with two jobs, the second after the first."""

    def __init__(self) -> None:
        self.left = ["first", "second"]
        self.running: str | None = None
        self.told: list[tuple[str, Any]] = []

    @property
    def finished(self) -> bool:
        return not self.left and self.running is None

    def next(self) -> str | None:
        if self.running is None and self.left:
            self.running = self.left.pop(0)
            return self.running
        return None

    def on_message(self, id: str, message: str) -> None:
        self.told.append((id, message))

    def on_end(self, id: str, lost: bool) -> None:
        self.told.append((id, "lost" if lost else "done"))
        self.running = None

    idle = False

    def stop(self) -> None:
        self.told.append(("all", "stop"))

    def on_stopped(self) -> None:
        self.told.append(("all", "stopped"))


def test_tune_is_given_what_the_desk_names_and_the_desk_hears_what_tune_is_told():
    desk = Clerk()
    hand = ray_tune._SearchAlgorithm(desk, ray_tune._Stopping())
    assert hand.suggest("t1") == {"job": "first"}
    assert hand.suggest("t2") is None
    hand.on_trial_result("t1", {"message": ray_tune._encode("hello"), "training_iteration": 1})
    hand.on_trial_complete("t1", {"done": True})
    assert hand.suggest("t3") == {"job": "second"}
    assert hand.suggest("t4") is None  # not finished: the second still runs
    hand.on_trial_complete("t3", error=True)
    assert hand.suggest("t5") == Searcher.FINISHED
    assert desk.told == [("first", "hello"), ("first", "done"), ("second", "lost")]


def test_tune_may_pickle_its_search_algorithm_and_gets_nothing():
    desk = Clerk()
    desk.unpicklable = lambda: None  # pyright: ignore[reportAttributeAccessIssue]
    assert b"first" not in pickle.dumps(ray_tune._SearchAlgorithm(desk, ray_tune._Stopping()))


def test_what_a_trial_raises_is_told(monkeypatch: pytest.MonkeyPatch):
    reports: list[dict[str, str]] = []
    monkeypatch.setattr(ray_tune.tune, "report", reports.append)
    monkeypatch.setattr(ray_tune.ray, "get", lambda handle: handle)

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
    """Has Tune run, as far as signals can tell; gives what ended it."""
    before, ended = [signal.getsignal(each) for each in SIGNALS], []

    def start() -> list[str]:
        signal.signal(signal.SIGUSR1, lambda number, frame: ended.append("tune"))  # as Tune does
        return ended

    yield start
    assert [signal.getsignal(each) for each in SIGNALS] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_desk_and_when_it_is_still_tune(
    number: signal.Signals, tune_ended: Callable[[], list[str]]
):
    desk = Clerk()
    with ray_tune._signals(desk), pytest.raises(KeyboardInterrupt):  # Tune does not run yet
        os.kill(os.getpid(), number)
    with ray_tune._signals(desk) as stopping:
        ended, hand = tune_ended(), ray_tune._SearchAlgorithm(desk, stopping)
        hand.suggest("t1")
        os.kill(os.getpid(), number)
        hand.on_trial_result("t1", {"message": ray_tune._encode("message")})
        assert ended == []
        desk.idle = True
        hand.on_trial_result("t1", {"message": ray_tune._encode("message")})
        assert ended == ["tune"]
        with pytest.raises(KeyboardInterrupt):  # the second one waits for nothing
            os.kill(os.getpid(), signal.SIGINT)
    assert [told for told in desk.told if told[0] == "all"] == [("all", "stop")] * 2


def test_patience_with_a_restless_desk_ends(
    tune_ended: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ray_tune, "GRACE_SECONDS", 0.05)
    with ray_tune._signals(Clerk()):
        ended = tune_ended()
        os.kill(os.getpid(), signal.SIGTERM)
        assert ended == []
        while not ended:
            time.sleep(0.01)
