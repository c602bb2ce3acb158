"""List the machines of the connected cluster, and the kinds of machines that it can still add.

A cluster that autoscales often begins without any machine that trains, so what it can grow to must
count. Ray has no call that tells it. Ray's autoscaler reads it from a file on the head, and under
KubeRay from the cluster's description, and so does this module, on the head.

Importing Ray takes a second, so the functions import it when they are called.
"""

import logging
import math
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from orchestrator.cluster.connection import connect, started_here
from orchestrator.cluster.packing import HEAD, Growth, Machines, NodeType
from orchestrator.cluster.resources import Resources

log = logging.getLogger(__name__)
FIXED = Growth(types=(), most=0)
UNKNOWN = Growth(types=(), most=0, known=False)
KNOWN_SECONDS = 300.0  # for which the head's answer counts, as configurations are changed
UNKNOWN_SECONDS = 30.0  # for which it counts that the head could not tell
_answers: dict[str, tuple[float, Growth]] = {}  # of each job: when, and what was answered
_told: set[str] = set()  # problems that were told


def machines() -> Machines:
    """Return the living machines of the cluster, and those that it can add."""
    found = living_machines()
    return found if started_here() else Machines(found.living, _growth(_job()))


def living_machines() -> Machines:
    """Return the living machines of the cluster, as if none could be added."""
    import ray

    connect()
    return Machines(tuple(node["Resources"] for node in ray.nodes() if node["Alive"]))


def steps_at_once(resources: Resources) -> int:
    """Return how many steps the cluster can train side by side at its largest, at least 1."""
    return max(1, machines().steps(resources))


def growth_of(config: dict[str, Any]) -> Growth:
    """Return what an autoscaler's configuration, in the format of `ray up`, lets a cluster add."""
    most = int(config.get("max_workers", 0))
    head = config.get("head_node_type")
    types = []
    for name, node_type in config.get("available_node_types", {}).items():
        count = min(most, int(node_type.get("max_workers", most)))
        if name != head and count > 0:
            has = {key: float(value) for key, value in node_type.get("resources", {}).items()}
            types.append(NodeType(name, has, count))
    return Growth(tuple(types), most)


def _job() -> str:
    """Return the id of this process's job, which is another one on another cluster."""
    import ray

    return ray.get_runtime_context().get_job_id()


def _growth(job: str) -> Growth:
    """Return what the cluster can add, as the head said some minutes ago at most."""
    when, before = _answers.get(job, (-math.inf, UNKNOWN))
    if time.monotonic() - when < (KNOWN_SECONDS if before.known else UNKNOWN_SECONDS):
        return before
    growth, problem = _ask_head()
    if problem and problem not in _told:
        _told.add(problem)
        log.warning("%s", problem)
    if before.known and not growth.known:
        growth = before  # the configuration was read before, and will be again
    _answers[job] = time.monotonic(), growth
    return growth


def _ask_head() -> tuple[Growth, str | None]:
    """Ask the head what the cluster can add, and why that is not known if it cannot tell."""
    import ray

    pinned: Any = ray.remote(num_cpus=0, resources={HEAD: 0.001})(_configured_growth)
    return ray.get(pinned.remote())  # what a task logs stays on its machine


def _configured_growth() -> tuple[Growth, str | None]:
    """Read the autoscaler's configuration on the head.

    Return what the cluster can add, and why that is not known if it cannot be read.
    """
    cluster = os.environ.get("RAY_CLUSTER_NAME")
    if cluster and "KUBERNETES_SERVICE_HOST" in os.environ:
        return _kuberay_growth(cluster, os.environ.get("RAY_CLUSTER_NAMESPACE", "default"))
    path = _configuration_file(_commands(), _gcs_address())
    return (FIXED, None) if path is None else read_growth(path)


def read_growth(path: Path) -> tuple[Growth, str | None]:
    """Return what an autoscaler's configuration file lets a cluster add.

    Return also why that is not known if the file cannot be read.
    """
    import yaml

    try:
        return growth_of(yaml.safe_load(path.expanduser().read_text())), None
    except (OSError, RuntimeError, ValueError, yaml.YAMLError) as error:
        told = " ".join(str(error).split())
        return UNKNOWN, (
            f"the autoscaler's configuration {path} cannot be read on the head ({told}), so only "
            "the cluster's living machines count: start the head with the file's whole path, and "
            "give the user of Ray's workers the right to read it"
        )


def _gcs_address() -> str:
    import ray

    return ray.get_runtime_context().gcs_address


def _commands() -> Iterable[tuple[list[str], str]]:
    """Yield the command lines of this machine's processes, each with its working directory."""
    import psutil

    # The directory of another user's process is not told.
    for process in psutil.process_iter(["cmdline", "cwd"]):
        yield process.info["cmdline"] or [], process.info["cwd"] or ""


def _configuration_file(commands: Iterable[tuple[list[str], str]], gcs_address: str) -> Path | None:
    """Return the file that the cluster's autoscaler was started with, None without one."""
    option = "--autoscaling-config="
    for command, folder in commands:
        if f"--gcs-address={gcs_address}" in command:
            for argument in command:
                if argument.startswith(option):
                    path = argument.removeprefix(option)
                    return Path(path) if path.startswith("~") else Path(folder, path)
    return None


def _kuberay_growth(cluster: str, namespace: str) -> tuple[Growth, str | None]:
    """Read the groups of a RayCluster from Kubernetes, as Ray's autoscaler does."""
    import requests
    from ray.autoscaler._private.kuberay.node_provider import KubernetesHttpApiClient

    try:
        resource = KubernetesHttpApiClient(namespace).get(f"rayclusters/{cluster}")
    except (OSError, requests.RequestException) as error:
        return UNKNOWN, (
            f"the RayCluster {cluster} cannot be read ({error}), so only its living machines "
            "count: give the head's service account the right to get rayclusters"
        )
    return kuberay_growth(resource), None


def kuberay_growth(resource: dict[str, Any]) -> Growth:
    """Return what a RayCluster lets its autoscaler add.

    Args:
        resource: The RayCluster, as Kubernetes describes it.
    """
    from ray.autoscaler._private.kuberay import autoscaling_config

    if not resource["spec"].get("enableInTreeAutoscaling"):
        return FIXED
    return growth_of(autoscaling_config._derive_autoscaling_config_from_ray_cr(resource))  # pyright: ignore[reportPrivateUsage]
