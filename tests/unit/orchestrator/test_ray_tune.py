"""What Ray Tune asks of a search algorithm, and what it is told; Tune itself runs in an integration test."""

import json
import os
import pickle
import signal
from typing import Any

import pytest
from ray.tune.search import Searcher

from orchestrator import ray_tune


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

    def heard(self, id: str, message: dict[str, str]) -> None:
        self.told.append((id, message))

    def ended(self, id: str, lost: bool) -> None:
        self.told.append((id, "lost" if lost else "done"))
        self.running = None

    def interrupted(self) -> None:
        self.told.append(("all", "interrupted"))


def test_tune_is_given_what_the_desk_names_and_the_desk_hears_what_tune_is_told():
    desk = Clerk()
    hand = ray_tune._Hand(desk)
    assert hand.suggest("t1") == {"job": "first"}
    assert hand.suggest("t2") is None
    hand.on_trial_result("t1", {"message": json.dumps({"said": "hello"}), "training_iteration": 1})
    hand.on_trial_complete("t1", {"done": True})
    assert hand.suggest("t3") == {"job": "second"}
    assert hand.suggest("t4") is None  # not finished: the second still runs
    hand.on_trial_complete("t3", error=True)
    assert hand.suggest("t5") == Searcher.FINISHED
    assert desk.told == [("first", {"said": "hello"}), ("first", "done"), ("second", "lost")]


def test_tune_may_pickle_its_search_algorithm_and_gets_nothing():
    desk = Clerk()
    desk.unpicklable = lambda: None  # pyright: ignore[reportAttributeAccessIssue]
    assert b"first" not in pickle.dumps(ray_tune._Hand(desk))


def test_what_a_trial_raises_is_told(monkeypatch: pytest.MonkeyPatch):
    reports: list[dict[str, str]] = []
    monkeypatch.setattr(ray_tune.tune, "report", reports.append)
    monkeypatch.setattr(ray_tune.ray, "get", lambda handle: handle)

    def work(part: str, tell: Any) -> None:
        tell({"said": part})
        raise RuntimeError("unforeseen")

    ray_tune._trial({"job": "a"}, work=work, handles={"a": "part of a"})  # pyright: ignore[reportArgumentType]
    said, failed = (json.loads(report["message"]) for report in reports)
    assert said == {"said": "part of a"}
    assert "RuntimeError: unforeseen" in failed["failed"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_gives_back_the_leases_and_then_ends_tune(number: signal.Signals):
    desk, ended = Clerk(), []
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    with ray_tune._signals(desk.interrupted), pytest.raises(KeyboardInterrupt):  # Tune does not run yet
        os.kill(os.getpid(), number)
    with ray_tune._signals(desk.interrupted):
        signal.signal(signal.SIGUSR1, lambda number, frame: ended.append("tune"))  # as Tune does when it runs
        os.kill(os.getpid(), number)
        assert ended == ["tune"]
        with pytest.raises(KeyboardInterrupt):  # the second Ctrl-C waits for nothing
            os.kill(os.getpid(), signal.SIGINT)
    assert desk.told == [("all", "interrupted")] * 2
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == before
