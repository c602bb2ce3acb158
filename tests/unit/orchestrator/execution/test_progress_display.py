"""Work shows how far it has come: a bar on a terminal, lines in a log."""

import io

import pytest
from rich.console import Console

from orchestrator.execution import progress_display
from orchestrator.execution.progress_display import show_progress


def test_a_terminal_gets_a_bar_with_the_time_left():
    out = io.StringIO()
    with show_progress(
        Console(file=out, force_terminal=True, width=100), "checking voc", 40
    ) as update:
        update(10)
    assert "checking voc" in out.getvalue()
    assert "10/40" in out.getvalue()


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch):
    now = 0.0
    monkeypatch.setattr(progress_display.time, "monotonic", lambda: now)
    out = io.StringIO()
    with show_progress(Console(file=out), "checking voc", 40) as update:
        for now in range(1, 41):
            update(now)
    assert out.getvalue().splitlines() == [
        "checking voc: 10/40, 30 s to go",
        "checking voc: 20/40, 20 s to go",
        "checking voc: 30/40, 10 s to go",
        "checking voc: 40/40, 0 s to go",
    ]
