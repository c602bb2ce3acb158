"""What would keep Ray from starting is said before it is started."""

import inspect
import os
import signal
import sys

import pytest

from orchestrator.cluster.connection import check_temporary_folder, signals_wait
from training.config import InputError


def test_a_temporary_folder_with_a_long_path_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "x" * 35)
    with pytest.raises(InputError, match="allow 39 bytes: set RAY_TMPDIR"):
        check_temporary_folder()
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "x" * 34)
    check_temporary_folder()


def be_impatient(number: int) -> None:
    """Send a second signal while the first waits."""
    with signals_wait():
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_until_ray_has_started(number: signal.Signals) -> None:
    import ray._private.utils

    handled: list[int] = []
    before = signal.signal(number, lambda number, frame: handled.append(number))
    try:
        with signals_wait():
            # As `ray.init` does.
            ray._private.utils.set_sigterm_handler(lambda number, frame: sys.exit(number))
            os.kill(os.getpid(), number)
            assert handled == []
        assert handled == [number]
        with pytest.raises(KeyboardInterrupt):
            be_impatient(number)
    finally:
        signal.signal(number, before)


def test_ray_still_sets_its_handler_where_we_prevent_it() -> None:
    import ray._private.worker

    # If this fails, `signals_wait` must prevent what Ray calls now.
    assert "ray._private.utils.set_sigterm_handler" in inspect.getsource(ray._private.worker.init)
