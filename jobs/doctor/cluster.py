"""What the doctor asks of every machine of a Ray cluster: versions, clock, GPUs, disk, shared memory, and the store from there.

A step may run on any of them, so that one which differs makes failures that come and go.
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

from jobs.doctor.services import FAR_APART, Finding
from orchestrator.cluster.ray_tasks import NodeAnswer, run_on_every_node
from orchestrator.store.retries import DEFAULT_RETRIES

SAME = (
    "torch",
    "ray",
    "numpy",
    "pyarrow",
    "pydantic",
    "safetensors",
)  # what decides results, and what travels between machines
Facts = dict[str, Any]


def look(cache: str | None, check: Callable[[], Finding]) -> Facts:
    """What this machine is like; runs on each of them."""
    import torch

    from orchestrator.store.cache import default_cache

    folder = Path(cache) if cache else default_cache()
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    shared = Path("/dev/shm")
    return {
        "host": socket.gethostname(),
        "time": time.time(),
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in SAME},
        "gpus": torch.cuda.device_count(),
        "disk": shutil.disk_usage(existing).free,
        "shared": shutil.disk_usage(shared).total if shared.exists() else None,
        "store": check(),
    }


def ask_nodes(check: Callable[[], Finding]) -> list[NodeAnswer[Facts]]:
    """Return the facts of every machine of the cluster."""
    function = partial(look, os.environ.get("STEPCHAIN_CACHE"), check)
    return run_on_every_node(function, DEFAULT_RETRIES.doctor_node_seconds)


def judge(
    answers: Sequence[NodeAnswer[Facts]], least_disk: float, least_shared: float
) -> Iterator[Finding]:
    """What is wrong on which machine, or one line for all that is well. `least_disk`, `least_shared`: in bytes."""
    first = answers[0].result
    for facts, gpus, before, after in answers:
        host = facts["host"]
        yield compare_versions(host, facts["versions"], first["host"], first["versions"])
        apart = max(0.0, before - facts["time"], facts["time"] - after)
        if apart > FAR_APART:
            yield Finding(
                f"{host} clock",
                f"{apart:.0f} s from ours",
                "set it by NTP: timedatectl set-ntp true",
            )
        if gpus and not facts["gpus"]:
            yield Finding(
                f"{host} GPU",
                f"Ray offers {gpus:g}, torch sees none",
                "use the image with torch's CUDA build there",
            )
        if facts["disk"] < least_disk:
            yield Finding(
                f"{host} cache",
                f"{facts['disk'] / 1e9:.1f} GB free",
                "a larger disk, or STEPCHAIN_CACHE on another",
            )
        if facts["shared"] is not None and facts["shared"] < least_shared:
            yield Finding(
                f"{host} /dev/shm",
                f"{facts['shared'] / 1e9:.2f} GB",
                "--shm-size, or an emptyDir of medium Memory at /dev/shm",
            )
        store: Finding = facts["store"]
        if store.fix:
            yield Finding(
                f"{host} {store.what}",
                store.found,
                f"{store.fix} (on that machine: jobs run there)",
            )


def compare_versions(
    host: str, versions: Mapping[str, str], other: str, expected: Mapping[str, str]
) -> Finding:
    """Whether a machine has the versions of another."""
    differing = [
        f"{name} {versions[name]}, on {other} {expected[name]}"
        for name in versions
        if versions[name] != expected[name]
    ]
    fix = "start all machines from one image" if differing else ""
    return Finding(
        f"{host} versions",
        "; ".join(differing) or f"torch {versions['torch']}, ray {versions['ray']}",
        fix,
    )
