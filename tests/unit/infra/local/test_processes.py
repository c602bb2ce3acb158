"""What was started is stopped, with all it started, and nothing else is touched."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from infra.local.processes import Ledger, NotStarted

# A program that starts a child, prints its number, and ignores SIGTERM.
PARENT = (
    "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    "print(child.pid, flush=True); "
    "time.sleep(60)"
)


def started(folder: Path) -> Ledger:
    ledger = Ledger(folder)
    ledger.start("one", [sys.executable, "-c", PARENT], {"PATH": os.environ["PATH"]})
    ledger.wait("one", lambda: ledger.log("one").read_text().endswith("\n"), 30)
    return ledger


def test_a_process_is_stopped_with_what_it_started_and_a_stranger_is_not(tmp_path: Path):
    ledger = started(tmp_path)
    child = psutil.Process(int(ledger.log("one").read_text()))
    parent = ledger.alive("one")
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as stranger:
        Ledger(tmp_path).stop("one", grace=0.2)  # another command, later
        assert parent is not None
        assert not runs(parent)
        assert not runs(child)
        assert stranger.poll() is None
        stranger.kill()
    assert ledger.names() == []


def test_children_of_a_process_that_was_killed_are_stopped_too(tmp_path: Path):
    ledger = started(tmp_path)
    child = psutil.Process(int(ledger.log("one").read_text()))
    parent = ledger.alive("one")
    assert parent is not None
    parent.kill()
    parent.wait(10)
    assert ledger.alive("one") is None
    assert runs(child)
    ledger.stop("one", grace=1)
    assert not runs(child)


def test_a_number_that_is_used_again_is_left_alone(tmp_path: Path):
    with subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True
    ) as stranger:
        (tmp_path / "processes.json").write_text(
            f'{{"one": {{"pid": {stranger.pid}, "began": 1.0}}}}'
        )
        ledger = Ledger(tmp_path)
        assert ledger.alive("one") is None
        ledger.stop("one", grace=1)
        assert stranger.poll() is None
        stranger.kill()


def test_a_process_that_ends_at_once_is_told_with_its_words(tmp_path: Path):
    ledger = Ledger(tmp_path)
    ledger.start("one", [sys.executable, "-c", "print('no such port')"], {})
    with pytest.raises(NotStarted, match="no such port"):
        ledger.wait("one", lambda: False, 30)


def runs(process: psutil.Process) -> bool:
    """Return whether it does anything. Its parent may not have noticed its end yet."""
    for _ in range(50):
        try:
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return False
        except psutil.NoSuchProcess:
            return False
        time.sleep(0.02)
    return True
