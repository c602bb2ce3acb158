"""Check that this machine can work: `python -m jobs.doctor --store URI`.

Each check prints one line, and how to fix what it finds. A note says what works but for a part. The
job exits with 1 when something must be fixed. It writes and deletes some objects in the store, one
of them of 33 MB where that is a bucket, and starts and stops Ray.
"""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import tyro

from jobs.console import open_console
from jobs.doctor.machine import (
    GIGABYTE,
    LEAST_DISK,
    check_devices,
    check_disk,
    check_package,
    check_python,
    check_shared_memory,
)
from jobs.doctor.services import (
    Finding,
    check_jobs_api,
    check_mlflow,
    check_store,
    check_token,
    run_check,
)
from jobs.errors import user_errors
from jobs.jobs_api import ADDRESS
from orchestrator.store.cache import default_cache
from orchestrator.store.open import default_store
from orchestrator.store.passwords import without_passwords

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
LEAST_SHARED_ON_NODE = 0.5  # GB; with less, Ray's object store goes to disk


def doctor(store: str | None = None, tracking_uri: str | None = None, ray: bool = True) -> None:
    """Check this machine, and every node of the cluster of RAY_ADDRESS or of this job.

    Args:
        store: Folder or s3://bucket/prefix; by default $STEPCHAIN_STORE or ./stepchain-store.
        tracking_uri: MLflow's address; by default $MLFLOW_TRACKING_URI or a database file in the
            store.
        ray: Start Ray, which takes some seconds.
    """
    console = open_console()
    failed = 0
    for finding in findings(store or default_store(), tracking_uri, ray):
        failed += bool(finding.fix)
        console.print(f"{_verdict(finding)} {finding.what}: {finding.found}")
        if finding.fix:
            console.print(f"     to fix it: {finding.fix}")
    console.print("everything works" if not failed else f"{failed} of the checks failed")
    sys.exit(bool(failed))


def _verdict(finding: Finding) -> str:
    if finding.fix:
        return "FAIL"
    return "note" if finding.limited else "ok  "


def findings(store: str, tracking_uri: str | None, ray: bool) -> Iterator[Finding]:
    """Run all checks, and yield each finding as soon as it is known."""
    yield check_python(sys.version_info[:2])
    packages = [check_package(package) for package in PACKAGES]
    yield from packages
    if any(finding.fix for finding in packages):
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


def check_ray(store: str) -> Iterator[Finding]:
    """Start Ray here, or connect to the cluster and check every node of it."""
    from jobs.doctor.cluster import ask_nodes, judge
    from orchestrator.cluster.connection import disconnect

    address = os.environ.get("RAY_ADDRESS")
    fix = "see /tmp/ray/session_latest/logs; often memory or /dev/shm"
    if address:
        fix = "mend RAY_ADDRESS, or the cluster that it names"
    try:
        what = f"ray {without_passwords(address) if address else 'on this machine'}"
        found = run_check(what, _connect, (Exception,), fix)
        yield found
        if address and not found.fix:
            answers = ask_nodes(partial(check_store, store))
            yield from judge(answers, LEAST_DISK * GIGABYTE, LEAST_SHARED_ON_NODE * GIGABYTE)
    finally:
        disconnect()


def _connect() -> str:
    """Connect to Ray, and return what it has."""
    from orchestrator.cluster.machines import machines

    start = time.monotonic()
    found = machines()
    cpus = sum(node.get("CPU", 0) for node in found.living)
    gpus = sum(node.get("GPU", 0) for node in found.living)
    seconds = time.monotonic() - start
    more = "".join(f", up to {each.most} more {each.name}" for each in found.growth.types)
    has = f"{len(found.living)} nodes, {cpus:.0f} CPUs and {gpus:.0f} GPUs"
    return f"{has}{more}, after {seconds:.0f} s"


@user_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    tyro.cli(doctor, prog="python -m jobs.doctor", description=__doc__, args=arguments)
