"""Connect this process to a Ray cluster.

Importing Ray takes a second, so the functions import it when they are called.
"""

import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from orchestrator.cluster.address import check_address
from orchestrator.cluster.stop_signals import send_again, stop_signals, takes
from orchestrator.store.retries import DEFAULT_RETRIES
from training.config import InputError

# Without this, a thread that still uses Ray when it is shut down starts another cluster. Ray reads
# it when it is imported.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
# Threads may connect at the same time, and Ray refuses a second connection.
_connecting = threading.Lock()
# What the path of a socket may have in bytes, and what Ray adds to its temporary folder for one.
SOCKET_PATH = 107
RAYS_PART = len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
CERTIFICATES = ("RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT")
# Variables of Ray's that are set here.
OURS = {
    "RAY_ENABLE_AUTO_CONNECT",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S",
    "RAY_TRAIN_METRICS_ENABLED",
    "RAY_USAGE_STATS_ENABLED",
}
QUIET: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}


def connect() -> None:
    """Make this process the driver of a Ray cluster. Calling it again does nothing.

    A local cluster ends with the thread that starts it.
    """
    import ray

    with _connecting:
        if not ray.is_initialized():
            _connect()


def _connect() -> None:
    check_tls()
    if started_here():
        _start_here()
    else:
        _join(os.environ["RAY_ADDRESS"])


def started_here() -> bool:
    """Return whether `connect` starts a cluster on this machine, because none is named."""
    # It is set by hand, or by `ray job submit`. Ray takes "local" for a cluster of one's own.
    return os.environ.get("RAY_ADDRESS", "") in ("", "local")


def _join(address: str) -> None:
    """Connect to the cluster at the address. Raise InputError if it cannot be used."""
    import ray
    from ray.exceptions import RayError

    check_address(address)
    try:
        with signals_wait():
            ray.init(**QUIET)
    except (ConnectionError, RayError, RuntimeError, ValueError) as error:
        # Another version of Ray or Python there, a token that it refuses, a head without a raylet.
        told = " ".join(str(error).split())[:400]
        raise InputError(
            f"cannot join the cluster at RAY_ADDRESS={address} ({type(error).__name__}: {told}): "
            "use the head's versions of Ray and Python, its token (RAY_AUTH_TOKEN_PATH), and the "
            "port of its GCS"
        ) from error


def disconnect() -> None:
    """Leave the cluster, and end it if this process started it."""
    import ray

    ray.shutdown()


def _start_here() -> None:
    """Start a cluster on this machine that ends with this process."""
    import ray
    from ray.exceptions import RayError

    check_temporary_folder()
    # Ray Train reads these in this process. On one machine no node is preempted and no metrics are
    # collected. More frequent health checks make each step end a second sooner.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    # When a worker is lost, the others wait in an operation that it will never join. Ray Train
    # gives them this long, 30 s by default, before it ends them.
    os.environ.setdefault("TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S", "5")
    # Waiting threads must not spin, because on a busy machine with two cores two spinning workers
    # block each other.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for left in reversed(range(DEFAULT_RETRIES.local_ray_starts)):
        try:
            with signals_wait():
                ray.init(address="local", include_dashboard=False, **QUIET)
            _hide_token()
            return
        except (OSError, RayError, RuntimeError, ValueError) as error:
            # Of a token, a folder or another variable that Ray cannot use.
            told = " ".join(str(error).split())[:400]
            raise InputError(
                f"Ray does not start on this machine ({type(error).__name__}: {told}): {_advice()}"
            ) from error
        except Exception as error:
            # Ray raises a bare Exception when its processes take longer than 30 s to start.
            if not left or "timed out during startup" not in str(error):
                raise
            ray.shutdown()


def check_temporary_folder() -> None:
    """Raise InputError if Ray's sockets would have too long a path in the temporary folder."""
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    longest = SOCKET_PATH - RAYS_PART
    if len(os.fsencode(folder)) > longest:
        raise InputError(
            f"the temporary folder {folder} is too long a path for Ray's sockets, which allow "
            f"{longest} bytes: set RAY_TMPDIR to a shorter one, such as /tmp"
        )
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"Ray cannot write to the temporary folder {folder} ({error.strerror}): set RAY_TMPDIR "
            "to another one, such as /tmp"
        ) from error


def check_tls() -> None:
    """Raise InputError if Ray is to use TLS without certificates, which it would wait for."""
    if os.environ.get("RAY_USE_TLS", "").lower() not in ("1", "true"):
        return
    for name in CERTIFICATES:
        if not os.path.isfile(os.environ.get(name, "")):
            raise InputError(
                f"RAY_USE_TLS is set, and {name} names no file: set {', '.join(CERTIFICATES)}, or "
                "unset RAY_USE_TLS"
            )


def _advice() -> str:
    """Return what to look at when Ray does not start here."""
    named = sorted(name for name in os.environ if name.startswith("RAY_") and name not in OURS)
    if not named:
        return "see /tmp/ray/session_latest/logs; often memory or /dev/shm is too small"
    return f"correct or unset what the environment says to Ray ({', '.join(named)})"


def _hide_token() -> None:
    """Make the token that Ray generates for local clusters readable by its owner only."""
    with suppress(FileNotFoundError, PermissionError):
        (Path.home() / ".ray" / "auth_token").chmod(0o600)


@contextmanager
def signals_wait() -> Iterator[None]:
    """Let signals that stop a job wait until Ray has connected, then handle them as before.

    Ray cannot be interrupted while it starts: its native code would abort the process, or leave
    processes behind. It also replaces the handler of SIGTERM twice: by one in Python, and by a
    native one that aborts a process which is still there after three seconds. A second signal does
    not wait.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    from ray._private import ray_constants, utils

    caught: list[int] = []
    handled = stop_signals()
    before = {number: signal.getsignal(number) for number in handled}
    set_by_ray = utils.set_sigterm_handler

    def wait(number: int, frame: object) -> None:
        if not takes(number, caught):
            return
        if len(caught) > 1:
            raise KeyboardInterrupt(number)

    for number in handled:
        signal.signal(number, wait)
    utils.set_sigterm_handler = lambda handler: None
    without_native = ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER
    ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = True
    try:
        yield
    finally:
        utils.set_sigterm_handler = set_by_ray
        ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = without_native
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if caught:
            send_again(caught[0])


def dashboard_address() -> str | None:
    """Return the address at which the cluster's machines reach its dashboard; None without one."""
    from ray._private import worker as ray_worker

    connect()
    url = ray_worker.get_dashboard_url()
    return f"http://{url}" if url else None
