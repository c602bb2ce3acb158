"""A step ends on another machine when the one that trains it is removed.

The machines are nodes of Ray's own test cluster.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from tests.support.datasets import publish_digits
from tests.support.stored_steps import has_checkpoint, read_step_records

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not os.environ.get("STEPCHAIN_SOAK"),
        reason="make soak runs it; test_cluster.py loses a machine, too",
    ),
]
JOB = (
    "digits_finetuning --groups 0,1,2 3,4 "
    "--base.optimization.epochs 80 --optimization.epochs 1 "
    "--base.optimization.batch 8 --optimization.batch 8 "
    "--no-tracking --checkpoint-every 0.2 --cpus-per-worker 1"
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path / "store"))
    publish_digits(store, tmp_path / "built", seed=2, train=120, val=12)
    return store


def test_a_step_ends_on_another_machine(cluster, store: Store, tmp_path: Path) -> None:
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    command = [sys.executable, "-m", "jobs.train", *JOB.split(), "--store", store.uri]
    environment = os.environ | {
        "RAY_ADDRESS": cluster.address,
        "STEPCHAIN_CACHE": str(tmp_path / "cache"),
    }
    with (
        (tmp_path / "job.log").open("w") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as job,
    ):
        while job.poll() is None and not has_checkpoint(store):
            time.sleep(0.1)
        assert job.poll() is None, (tmp_path / "job.log").read_text()
        (training,) = (node for node in nodes if trains(node))
        cluster.remove_node(training, allow_graceful=False)
        assert job.wait(timeout=400) == 0, (tmp_path / "job.log").read_text()
    base, _ = read_step_records(store)
    assert base.resources["restarts"] == 1
    assert base.resources["resumed_from"] > 0


def trains(node) -> bool:
    """Return whether the worker of a step is a child of this node's raylet."""
    (raylet,) = node.all_processes["raylet"]
    children = psutil.Process(raylet.process.pid).children(recursive=True)
    return any("RayTrainWorker" in " ".join(child.cmdline()) for child in children)
