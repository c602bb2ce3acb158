"""Check every node of a Ray cluster: versions, clock, GPUs, disk, shared memory, and the store.

A step may run on any of them, so a node that differs causes failures that come and go.
"""

import os
import platform
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from jobs.doctor.machine import existing_folder
from jobs.doctor.services import FAR_APART, Finding
from orchestrator.cluster.ray_tasks import NodeAnswer, NodeFailure, run_on_every_node
from orchestrator.store.retries import DEFAULT_RETRIES

# The packages that decide results, and those whose objects travel between nodes.
SAME = ("torch", "ray", "numpy", "pyarrow", "pydantic", "safetensors")
NO_ANSWER = (
    "restart Ray there, from the image of the other machines; if all its GPUs are in use, wait "
    "until one is free"
)

Facts = dict[str, Any]


def look(cache: str | None, check: Callable[[], Finding]) -> Facts:
    """Return the facts of this machine. It runs on each node."""
    import torch

    from orchestrator.store.cache import default_cache

    folder = Path(cache) if cache else default_cache()
    shared = Path("/dev/shm")
    versions = {name: metadata.version(name) for name in SAME}
    return {
        "host": socket.gethostname(),
        "time": time.time(),
        "versions": {"python": platform.python_version(), **versions},
        "gpus": torch.cuda.device_count(),
        "disk": shutil.disk_usage(existing_folder(folder)).free,
        "shared": shutil.disk_usage(shared).total if shared.exists() else None,
        "store": check(),
    }


def ask_nodes(check: Callable[[], Finding]) -> list[NodeAnswer[Facts] | NodeFailure]:
    """Return the facts of every node of the cluster."""
    function = partial(look, os.environ.get("STEPCHAIN_CACHE"), check)
    return run_on_every_node(function, DEFAULT_RETRIES.doctor_node_seconds)


def judge(
    answers: Sequence[NodeAnswer[Facts] | NodeFailure], least_disk: float, least_shared: float
) -> Iterator[Finding]:
    """Yield what is wrong on which node, and one line for the versions of each.

    Args:
        answers: The facts of each node, or why it gave none.
        least_disk: Bytes that the cache needs.
        least_shared: Bytes that Ray's object store needs.
    """
    first: Facts | None = None
    for answer in answers:
        if isinstance(answer, NodeFailure):
            yield Finding(answer.host, answer.reason, NO_ANSWER)
            continue
        first = first or answer.result
        facts = answer.result
        host = facts["host"]
        yield compare_versions(host, facts["versions"], first["host"], first["versions"])
        yield from _check_clock(answer)
        yield from _check_hardware(answer, least_disk, least_shared)
        store: Finding = facts["store"]
        if store.fix:
            fix = f"{store.fix} (on that machine: jobs run there)"
            yield Finding(f"{host} {store.what}", store.found, fix)


def _check_clock(answer: NodeAnswer[Facts]) -> Iterator[Finding]:
    """Yield a finding when a node's clock differs from this machine's."""
    facts = answer.result
    apart = max(0.0, answer.asked - facts["time"], facts["time"] - answer.answered)
    if apart > FAR_APART:
        found = f"{apart:.0f} s from ours"
        yield Finding(f"{facts['host']} clock", found, "set it by NTP: timedatectl set-ntp true")


def _check_hardware(
    answer: NodeAnswer[Facts], least_disk: float, least_shared: float
) -> Iterator[Finding]:
    """Yield what a node has too little of."""
    facts = answer.result
    host = facts["host"]
    if answer.gpus and not facts["gpus"]:
        found = f"Ray offers {answer.gpus:g}, torch sees none"
        yield Finding(f"{host} GPU", found, "use the image with torch's CUDA build there")
    if facts["disk"] < least_disk:
        found = f"{facts['disk'] / 1e9:.1f} GB free"
        yield Finding(f"{host} cache", found, "a larger disk, or STEPCHAIN_CACHE on another")
    if facts["shared"] is not None and facts["shared"] < least_shared:
        found = f"{facts['shared'] / 1e9:.2f} GB"
        fix = "--shm-size, or an emptyDir of medium Memory at /dev/shm"
        yield Finding(f"{host} /dev/shm", found, fix)


def compare_versions(
    host: str, versions: Mapping[str, str], other: str, expected: Mapping[str, str]
) -> Finding:
    """Check that a node has the versions of another."""
    differing = []
    for name, version in versions.items():
        if version != expected[name]:
            differing.append(f"{name} {version}, on {other} {expected[name]}")
    found = "; ".join(differing) or f"torch {versions['torch']}, ray {versions['ray']}"
    fix = "start all machines from one image" if differing else ""
    return Finding(f"{host} versions", found, fix)
