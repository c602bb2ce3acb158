"""What a campaign shows while it runs: a live picture on a terminal, lines in a log."""

import time
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from orchestrator.campaigns.live_view import LiveView
from orchestrator.campaigns.outcome import ChainOutcome, StepOutcome
from orchestrator.execution import progress_display
from orchestrator.planning.store_state import StepState
from training.metrics import Scores

SCORES = Scores(
    images=1,
    iou={},
    miou_groups=(),
    miou_all=0.611,
    miou_all_without_background=None,
    miou_old=0.712,
    miou_old_with_background=None,
    miou_new=None,
    miou_base_with_background=None,
    miou_base=None,
    miou_added=None,
    pixel_accuracy=None,
)


def node(key: str, name: str, chains: int = 1) -> Any:
    optimization = SimpleNamespace(batch=8)
    planned = SimpleNamespace(
        title=f"step 1 ({key})", iterations=100, step=SimpleNamespace(optimization=optimization)
    )
    plan = SimpleNamespace(chain=SimpleNamespace(name=name))
    return SimpleNamespace(key=key, planned=planned, plan=plan, chains=tuple(range(chains)))


def view(terminal: bool) -> tuple[LiveView, StringIO]:
    outcomes = {
        "a": StepOutcome(StepState.PUBLISHED),
        "b": StepOutcome(StepState.RUNNING),
        "c": StepOutcome(StepState.FAILED, "it diverged"),
        "d": StepOutcome(StepState.WAITING),
    }
    nodes = {
        "a": node("a", "alpha=0"),
        "b": node("b", "alpha=1", 3),
        "c": node("c", "alpha=2"),
        "d": node("d", "alpha=3"),
    }
    file = StringIO()
    console = Console(file=file, force_terminal=terminal, width=150, color_system=None)
    tree: Any = SimpleNamespace(nodes=nodes)
    shown = LiveView("my campaign", tree, outcomes, console, lambda: 90.0)
    shown.progress["b"] = {
        "stage": "train",
        "iteration": 40,
        "total": 100,
        "loss": 0.5,
        "images_per_second": 80.0,
    }
    return shown, file


def test_a_terminal_shows_running_steps_the_whole_and_finished_chains():
    shown, file = view(terminal=True)
    with shown:
        shown.chain_done(ChainOutcome("alpha=0", StepState.PUBLISHED, scores=SCORES))
        shown.refresh()
    text = file.getvalue()
    for part in (
        "my campaign",
        "1 of 4 steps published, 1 running, 1 waiting, 1 failed, about 0:01:30 to go",
        "step 1 (b) of 3 chains",
        "40/100, 6 s to go",
        "alpha=0",
        "mIoU old 71.2, all 61.1",
    ):
        assert part in text


def test_a_log_gets_a_line_for_what_happens_and_now_and_then_for_the_whole(
    monkeypatch: pytest.MonkeyPatch,
):
    shown, file = view(terminal=False)
    with shown:
        shown.refresh()  # too early
        shown.step_done(node("a", "alpha=0"), StepState.PUBLISHED, SCORES)
        shown.step_given_up(node("c", "alpha=2"))
        now = time.monotonic()
        monkeypatch.setattr(progress_display.time, "monotonic", lambda: now + 61)
        shown.refresh()
    assert file.getvalue().splitlines() == [
        "step 1 (a) of alpha=0: published, mIoU old 71.2, all 61.1 (1 of 4 steps)",
        "step 1 (c) of alpha=2: failed: it diverged",
        "my campaign: 1 of 4 steps published, 1 running, 1 waiting, 1 failed, about 0:01:30 to go",
    ]
