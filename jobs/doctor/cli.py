"""Check that this machine can work: `python -m jobs.doctor --store URI`. One line per check, with what mends it.

Exits with 1 when something must be mended. It writes and deletes some objects in the store, one of them of 33 MB
where that is a bucket, and starts and stops Ray.
"""

import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from functools import partial
from importlib import metadata
from pathlib import Path

import tyro
from rich.console import Console

from jobs.doctor.cluster import ask_nodes, judge
from jobs.doctor.services import (
    ADDRESS,
    Finding,
    check_jobs_api,
    check_mlflow,
    check_store,
    check_token,
    tried,
)
from orchestrator.store.cache import default_cache
from orchestrator.store.open import default_store

PACKAGES = (
    "torch",
    "ray",
    "mlflow",
    "pyarrow",
    "numpy",
    "pydantic",
    "boto3",
    "opencv-python-headless",
    "safetensors",
)
GIGABYTE = 1e9
LEAST_DISK = 5  # GB for the cache
LEAST_SHARED_ON_NODE = 0.5  # GB: less, and Ray's object store goes to disk
LEAST_SHARED_MEMORY = 0.25  # of the memory, which is what Ray's object store wants


def main(store: str | None = None, tracking_uri: str | None = None, ray: bool = True) -> None:
    """Check that this machine can work, and every machine of the cluster that RAY_ADDRESS names or that this job runs on.

    Args:
        store: Folder or s3://bucket/prefix; by default $STEPCHAIN_STORE or ./stepchain-store.
        tracking_uri: Where MLflow is; by default $MLFLOW_TRACKING_URI or a database file in the store.
        ray: Start Ray, which takes some seconds.
    """
    console = Console(highlight=False, markup=False, soft_wrap=True)
    failed = 0
    for finding in findings(store or default_store(), tracking_uri, ray):
        failed += bool(finding.fix)
        console.print(f"{'FAIL' if finding.fix else 'ok  '} {finding.what}: {finding.found}")
        if finding.fix:
            console.print(f"     to mend it: {finding.fix}")
    console.print("everything works" if not failed else f"{failed} of the checks failed")
    sys.exit(bool(failed))


def findings(store: str, tracking_uri: str | None, ray: bool) -> Iterator[Finding]:
    """All checks, each as soon as it is made."""
    yield check_python(sys.version_info[:2])
    for package in PACKAGES:
        yield check_package(package)
    if any(check_package(package).fix for package in PACKAGES):
        return  # the other checks need them
    yield check_devices()
    yield check_disk(default_cache())
    yield check_shared_memory(Path("/dev/shm"))
    yield check_store(store)
    yield check_mlflow(store, tracking_uri)
    yield check_token()
    if address := os.environ.get(ADDRESS):
        yield check_jobs_api(address)
    if ray:
        yield from check_ray(store)


def check_python(version: tuple[int, int]) -> Finding:
    fix = (
        "" if version >= (3, 11) else "install Python 3.11 or newer, and make the environment anew"
    )
    return Finding("python", platform.python_version(), fix)


def check_package(name: str) -> Finding:
    try:
        return Finding(name, metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(name, "not installed", "pip install -e . in the environment that runs this")


def check_devices() -> Finding:
    import torch

    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    fix = ""
    if not gpus and shutil.which("nvidia-smi"):
        fix = "there is an NVIDIA driver, and torch does not see a GPU: install torch's CUDA build for that driver"
    return Finding("devices", f"{os.cpu_count()} CPUs, {', '.join(gpus) or 'no GPU'}", fix)


def check_disk(folder: Path) -> Finding:
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free / GIGABYTE
    fix = (
        ""
        if free >= LEAST_DISK
        else "free some space, or set STEPCHAIN_CACHE to a folder on a larger disk"
    )
    return Finding(f"cache {folder}", f"{free:.0f} GB free", fix)


def check_shared_memory(folder: Path) -> Finding:
    if not folder.exists():
        return Finding(f"{folder}", "does not exist here, and Ray does without it")
    total = shutil.disk_usage(folder).total
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    enough = total >= min(LEAST_SHARED_MEMORY * memory, 2 * GIGABYTE)
    fix = (
        "" if enough else "give the container more shared memory, such as docker run --shm-size=4g"
    )
    return Finding(f"{folder}", f"{total / GIGABYTE:.1f} GB", fix)


def check_ray(store: str) -> Iterator[Finding]:
    """Start Ray here, or connect to the cluster, and look at every machine of it."""
    where = os.environ.get("RAY_ADDRESS")
    fix = (
        "check RAY_ADDRESS and the token (ray get-auth-token)"
        if where
        else "see /tmp/ray/session_latest/logs; often memory or /dev/shm"
    )
    from orchestrator.cluster.connection import cluster_nodes, connect, disconnect

    def work() -> str:
        start = time.monotonic()
        connect()
        nodes = cluster_nodes()
        cpus, gpus = (sum(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU"))
        return f"{len(nodes)} machines, {cpus:.0f} CPUs and {gpus:.0f} GPUs, after {time.monotonic() - start:.0f} s"

    try:
        found = tried(f"ray {where or 'on this machine'}", work, (Exception,), fix)
        yield found
        if where and not found.fix:
            answers = ask_nodes(partial(check_store, store))
            yield from judge(answers, LEAST_DISK * GIGABYTE, LEAST_SHARED_ON_NODE * GIGABYTE)
    finally:
        disconnect()


def command() -> None:
    """The command line."""
    tyro.cli(main, prog="python -m jobs.doctor", description=__doc__)
