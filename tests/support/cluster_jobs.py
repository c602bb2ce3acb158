"""Run our jobs as drivers of Ray's own test cluster, and wait for what they do."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from orchestrator.store.base import Store
from tests.support.paths import ROOT


def start(command: Sequence[str], cluster: Any, store: Store, log: Path) -> subprocess.Popen:
    """Start a command of ours as the cluster's driver."""
    environment = os.environ | {
        "RAY_ADDRESS": cluster.address,
        "STEPCHAIN_CACHE": str(log.parent / "cache"),
    }
    with log.open("w") as output:
        return subprocess.Popen(
            [sys.executable, *command, "--store", store.uri],
            env=environment,
            cwd=ROOT,
            stdout=output,
            stderr=output,
        )


def wait_for(
    condition: Callable[[], object], job: subprocess.Popen, log: Path, seconds: float = 300
) -> None:
    """Wait until the condition holds. Fail with the job's output if it ends before."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert job.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
