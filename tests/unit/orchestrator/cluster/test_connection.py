"""What would keep Ray from starting is said before it is started."""

import inspect
import json
import os
import signal
import sys

import pytest
from ray.exceptions import AuthenticationError

from jobs.errors import user_errors
from orchestrator.cluster.connection import _connect, check_temporary_folder, signals_wait
from training.config import InputError


def test_a_temporary_folder_with_a_long_path_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "x" * 35)
    with pytest.raises(InputError, match="allow 39 bytes: set RAY_TMPDIR"):
        check_temporary_folder()
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "x" * 34)
    check_temporary_folder()


def test_a_temporary_folder_that_cannot_be_made_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_TMPDIR", "/proc/x")
    with pytest.raises(InputError, match="cannot write to the temporary folder /proc/x"):
        check_temporary_folder()


def test_tls_without_certificates_is_refused_before_ray_waits_for_them(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("RAY_USE_TLS", "1")
    for address in ("local", "127.0.0.1:6379"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(InputError, match="RAY_TLS_SERVER_CERT names no file: set RAY_TLS"):
            _connect()


@pytest.mark.parametrize(
    "error",
    [
        AuthenticationError("there is no token at /nofile"),
        FileNotFoundError(2, "No such file or directory", "/nofile"),
        json.JSONDecodeError("Expecting property name", "{nope", 1),
    ],
)
def test_what_keeps_ray_from_starting_names_the_variables_that_it_read(
    monkeypatch: pytest.MonkeyPatch, error: Exception
):
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/nofile")
    monkeypatch.setattr("ray.init", fail)
    with pytest.raises(InputError, match=r"Ray does not start .*RAY_AUTH_TOKEN_PATH") as caught:
        _connect()
    assert "RAY_TRAIN" not in str(caught.value)


def be_impatient(number: int) -> None:
    """Send a second signal while the first waits."""
    with signals_wait():
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_waited_ends_the_job_with_its_code(number: signal.Signals) -> None:
    with pytest.raises(SystemExit) as ended, user_errors(), signals_wait():
        os.kill(os.getpid(), number)
    assert ended.value.code == 128 + number


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
