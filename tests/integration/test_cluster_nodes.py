"""Several machines, as Ray's own tests make them: one is taken away in mid-step, and the step ends on another."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.datasets.catalog import publish
from orchestrator.records.schema import StepRecord
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from tests.support.datasets import build_dataset
from training.data.digits import Digits

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
    "digits_finetuning --groups 0,1,2 3,4 --base.optimization.epochs 80 --optimization.epochs 1 --base.optimization.batch 8 "
    "--optimization.batch 8 --no-tracking --checkpoint-every 0.2 --cpus-per-worker 1"
)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """A head that trains nothing, and nobody else yet."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # it lives for a test, on this machine
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "dashboard_port": 0, "resources": {"orchestrator": 4}},
    )
    yield cluster
    cluster.shutdown()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path / "store"))
    manifest, _ = build_dataset(Digits(seed=2, train=120, val=12), tmp_path / "built")
    publish(store, "digits", tmp_path / "built", manifest)
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
        while job.poll() is None and not any(
            name.endswith("/done.json") for name in store.list("steps/")
        ):
            time.sleep(0.1)
        assert job.poll() is None, (tmp_path / "job.log").read_text()
        (training,) = (node for node in nodes if trains(node))
        cluster.remove_node(training, allow_graceful=False)
        assert job.wait(timeout=400) == 0, (tmp_path / "job.log").read_text()
    names = [name for name in store.list("steps/") if name.endswith("record.json")]
    base, _ = sorted(
        (StepRecord.model_validate_json(store.read(name)) for name in names),
        key=lambda record: record.index,
    )
    assert base.resources["restarts"] == 1
    assert base.resources["resumed_from"] > 0


def trains(node) -> bool:
    """Whether the worker of a step is a child of this node's raylet."""
    (raylet,) = node.all_processes["raylet"]
    return any(
        "RayTrainWorker" in " ".join(child.cmdline())
        for child in psutil.Process(raylet.process.pid).children(recursive=True)
    )
