"""Connect this process to a Ray cluster, and list the cluster's resources.

Importing Ray takes a second, so the functions import it when they are called.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from orchestrator.cluster.resources import Node, Resources, room
from orchestrator.store.retries import DEFAULT_RETRIES

QUIET: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}


def connect(dashboard: bool = False) -> None:
    """Make this process the driver of a Ray cluster. Calling it again does nothing.

    Args:
        dashboard: Whether a local cluster gets a dashboard. When a process that starts workers is
            lost, Ray asks the dashboard which processes are alive. Without it, the resources of the
            lost workers are never released.
    """
    import ray

    if ray.is_initialized():
        return
    if os.environ.get("RAY_ADDRESS"):  # set by hand, or by `ray job submit`
        with _keeping_sigterm():
            ray.init(**QUIET)
    else:
        _start_here(dashboard)


def disconnect() -> None:
    """Leave the cluster, and end it if this process started it."""
    import ray

    ray.shutdown()


def _start_here(dashboard: bool) -> None:
    """Start a cluster on this machine that ends with this process."""
    import ray

    # Ray Train reads these in this process. On one machine no node is preempted and no metrics are
    # collected. More frequent health checks make each step end a second sooner.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    # Waiting threads must not spin, because on a busy machine with two cores two spinning workers
    # block each other.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for left in reversed(range(DEFAULT_RETRIES.local_ray_starts)):
        try:
            with _keeping_sigterm():
                ray.init(address="local", include_dashboard=dashboard, **QUIET)
            _hide_token()
            return
        except Exception as error:
            # Ray raises a bare Exception when its processes take longer than 30 s to start.
            if not left or "timed out during startup" not in str(error):
                raise
            ray.shutdown()


def _hide_token() -> None:
    """Make the token that Ray generates for local clusters readable by its owner only."""
    with suppress(FileNotFoundError, PermissionError):
        (Path.home() / ".ray" / "auth_token").chmod(0o600)


@contextmanager
def _keeping_sigterm() -> Iterator[None]:
    """Restore this process's handler of SIGTERM, because Ray replaces it as it connects."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(handler) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def dashboard_address() -> str | None:
    """Return the address at which the cluster's machines reach its dashboard; None without one."""
    from ray._private import worker as ray_worker

    connect()
    url = ray_worker.get_dashboard_url()
    return f"http://{url}" if url else None


def cluster_nodes() -> list[Node]:
    """Return what each living machine of the connected cluster has."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def autoscales() -> bool:
    """Return whether the connected cluster adds machines by itself."""
    return _largest_node() is not None


def steps_at_once(resources: Resources) -> int:
    """Return how many steps the connected cluster can train side by side, at least 1.

    A cluster that autoscales counts at its largest.
    """
    largest = _largest_node()
    nodes = [largest] if largest else cluster_nodes()
    return max(1, room(resources, nodes) // resources.workers)


def _largest_node() -> Node | None:
    """Return the resources of an autoscaling cluster at its largest, as if it were one machine.

    None means that the cluster does not autoscale.
    """
    # Ray has no public call for this. Ray Train reads it in the same way.
    from ray._private.state import state

    largest = state.get_max_resources_from_cluster_config()
    return None if largest is None else dict[str, float](largest)
