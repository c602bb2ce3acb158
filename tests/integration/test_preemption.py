"""A node that Ray announces as preempted costs a step what came after its checkpoint, once."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.records import layout
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from tests.support.cluster_jobs import start, wait_for
from tests.support.datasets import publish_digits
from tests.support.marks import on_ray
from tests.support.stored_steps import read_step_records

pytestmark = on_ray(600)
TRAIN = (
    "-m jobs.train digits_finetuning --groups 0,1,2 3,4 "
    "--base.optimization.epochs 1 --optimization.epochs 240 "
    "--base.optimization.batch 8 --optimization.batch 8 --cpus-per-worker 1 "
    "--no-tracking --checkpoint-every 0.2 --custom-resources fast_disk=1"
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path / "store"))
    publish_digits(store, tmp_path / "built", seed=2, train=60, val=6)
    return store


def test_a_step_goes_on_elsewhere_and_the_one_before_is_left_alone(
    cluster: Any, store: Store, tmp_path: Path
) -> None:
    node = cluster.add_node(num_cpus=2, resources={"fast_disk": 1})
    cluster.wait_for_nodes()
    log = tmp_path / "log.txt"
    job = start(TRAIN.split(), cluster, store, log)
    try:
        wait_for(lambda: read_step_records(store), job, log)
        cluster.add_node(num_cpus=2, resources={"fast_disk": 1})
        # The team's second piece of work: step 0 was its first.
        wait_for(lambda: increment_has_checkpoint(store), job, log)
        before = files_of_step_0(store)
        announce(cluster.address, node.node_id, seconds=2)
        time.sleep(2)
        cluster.remove_node(node)
        assert job.wait(timeout=300) == 0, log.read_text()
    finally:
        job.kill()
    _, increment = read_step_records(store)
    assert increment.resources["resumed_from"] > 0, log.read_text()
    assert increment.resources["restarts"] >= 1
    assert files_of_step_0(store) == before


def announce(address: str, node: str, seconds: int) -> None:
    """Tell Ray that a node will be taken away, as an autoscaler does of a spot machine."""
    arguments = ["--address", address, "--node-id", node]
    arguments += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
    arguments += ["--deadline-remaining-seconds", str(seconds)]
    ray = Path(sys.executable).with_name("ray")
    subprocess.run([ray, "drain-node", *arguments], check=True)


def increment_has_checkpoint(store: Store) -> bool:
    """Return whether step 1 can be gone on with. Step 0's checkpoints go after its record."""
    base = layout.step_folder(read_step_records(store)[0].key)
    names = (name for name in store.list(layout.STEPS) if layout.is_checkpoint_done(name))
    return any(not name.startswith(base) for name in names)


def files_of_step_0(store: Store) -> list[Any]:
    """Return what the attempts at step 0 have written, with times."""
    base = read_step_records(store)[0]
    return list(store.entries(layout.attempts_folder(base.key)))
