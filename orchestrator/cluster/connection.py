"""Connect to a Ray cluster, and ask it what it has."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import ray
from ray._private import worker as ray_worker
from ray._private.state import state as ray_state

from orchestrator.cluster.resources import Node, Resources, room


def connect(dashboard: bool = False) -> None:
    """Make this process the driver of a Ray cluster, once.

    `dashboard`: a local cluster gets one. Ray asks it which of its processes are alive when one of those that start workers is
    lost; without it the room of these workers is never given back.
    """
    if ray.is_initialized():
        return
    quiet = {"logging_level": "error", "log_to_driver": False}
    if os.environ.get("RAY_ADDRESS"):  # set by hand, or in what `ray job submit` started
        with _keeping_sigterm():
            ray.init(**quiet)
        return
    # Read by Ray Train in this process. On one machine nothing is preempted and nobody collects metrics; asking the workers
    # more often how they are makes each step end a second sooner.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    # Threads that wait must not spin: on a machine that does anything else, two of them on two cores stand still.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for patient in (True, True, False):
        try:
            with _keeping_sigterm():
                ray.init(address="local", include_dashboard=dashboard, **quiet)
            _hide_token()
            return
        except (
            Exception
        ) as error:  # the class that Ray raises when its processes need over 30 s to start
            if not patient or "timed out during startup" not in str(error):
                raise
            ray.shutdown()


def _hide_token() -> None:
    """Ray makes a token for clusters of this machine, in a file that everybody may read."""
    with suppress(FileNotFoundError, PermissionError):
        (Path.home() / ".ray" / "auth_token").chmod(0o600)


@contextmanager
def _keeping_sigterm() -> Iterator[None]:
    """Ray has SIGTERM end the process as it connects; whoever listened to it before goes on doing so."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(handler) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def dashboard_address() -> str | None:
    """Where the dashboard of the connected cluster is, as its own machines reach it."""
    connect()
    url = ray_worker.get_dashboard_url()
    return f"http://{url}" if url else None


def cluster_nodes() -> list[Node]:
    """The machines of the connected cluster that are alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def autoscales() -> bool:
    """Whether the connected cluster adds machines by itself. Ray Train then refuses by itself what it can never place."""
    # No public call tells; Ray Train asks in the same way.
    return ray_state.get_max_resources_from_cluster_config() is not None


def steps_at_once(resources: Resources) -> int:
    """How many steps the connected cluster can train side by side, at its largest if it grows by itself; at least 1."""
    largest = ray_state.get_max_resources_from_cluster_config()
    nodes = [Node(largest)] if largest else cluster_nodes()
    return max(1, room(resources, nodes) // resources.workers)
