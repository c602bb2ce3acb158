import io

import pytest
from rich.console import Console

from jobs import progress
from jobs.progress import progress_bar


def test_a_terminal_gets_a_bar_with_the_time_left():
    out = io.StringIO()
    with progress_bar(
        Console(file=out, force_terminal=True, width=100), "checking voc", 40
    ) as update:
        update(10)
    assert "checking voc" in out.getvalue()
    assert "10/40" in out.getvalue()


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch):
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    out = io.StringIO()
    with progress_bar(Console(file=out), "checking voc", 40) as update:
        for now in range(1, 41):
            update(now)
    assert out.getvalue().splitlines() == [
        "checking voc: 10/40, 30 s to go",
        "checking voc: 20/40, 20 s to go",
        "checking voc: 30/40, 10 s to go",
        "checking voc: 40/40, 0 s to go",
    ]
