"""Kinds of work get what they are given, and a lost machine is waited for, on a real cluster.

The machines are nodes of Ray's own test cluster. Their GPU is declared, and nothing computes on it.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import ray
import torch.distributed as distributed

from orchestrator.cluster import workers
from orchestrator.cluster.machines import machines, steps_at_once
from orchestrator.cluster.resources import Request, settle
from orchestrator.cluster.waiting import Waiting
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from orchestrator.store.retries import Retries
from tests.support.cluster_jobs import start, wait_for
from tests.support.datasets import publish_digits
from tests.support.marks import on_ray
from tests.support.stored_steps import has_checkpoint, read_step_records
from training.runtime import Runtime

pytestmark = on_ray(900)
SOAK = pytest.mark.skipif(
    not os.environ.get("STEPCHAIN_SOAK"), reason="make soak runs it: it waits for Ray to notice"
)
CAMPAIGN = '''"""Do two increments share the disk that step 0 had alone?"""

from stepchain import digits_finetuning, sweep, with_field

RESOURCES = {
    "base": {"cpus": 1, "accelerator": "A100", "resource.fast_disk": 1},
    "increment": {"cpus": 1, "resource.fast_disk": 0.5, "memory": 1},
}


def chains():
    start = with_field(digits_finetuning(), "scenario.groups", (("0", "1", "2"), ("3", "4")))
    for optimization in ("base.optimization", "optimization"):
        start = with_field(start, optimization + ".batch", 8)
        start = with_field(start, optimization + ".epochs", 1)
    return sweep(start, {"optimization.momentum": (0.8, 0.9)})
'''
TRAIN = (
    "-m jobs.train digits_finetuning --groups 0,1,2 3,4 "
    "--base.optimization.epochs 20 --optimization.epochs 1 "
    "--base.optimization.batch 8 --optimization.batch 8 "
    "--no-tracking --checkpoint-every 0.2 --give base:cpus=2,resource.fast_disk=1"
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path / "store"))
    publish_digits(store, tmp_path / "built", seed=2, train=60, val=6)
    return store


def test_kinds_of_steps_share_machines_by_what_they_are_given(
    cluster: Any, store: Store, tmp_path: Path
) -> None:
    cluster.add_node(num_cpus=2, resources={"accelerator_type:A100": 1, "fast_disk": 1})
    cluster.wait_for_nodes()
    (tmp_path / "shared_disk.py").write_text(CAMPAIGN)
    command = ["-m", "jobs.campaign", "run", str(tmp_path / "shared_disk.py"), "--no-tracking"]
    job = start(command, cluster, store, tmp_path / "log.txt")
    code = job.wait()
    printed = " ".join((tmp_path / "log.txt").read_text().split())
    assert code == 0, printed
    assert "base: each worker gets 1 CPU and 1 fast_disk; up to 1 base at once" in printed
    share = "increment: each worker gets 1 CPU, 1 GB of memory and 0.5 fast_disk"
    assert f"{share}; up to 2 increments at once" in printed
    base, *increments = read_step_records(store)
    assert (base.resources["accelerator"], base.resources["workers"]) == ("A100", 1)
    assert [each.resources["memory_per_worker"] for each in increments] == [1, 1]


@SOAK
def test_teams_share_one_gpu_and_workers_are_placed_apart(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        cluster.add_node(num_cpus=1, num_gpus=1)
    cluster.wait_for_nodes()
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    half = settle(Request(cpus_per_worker=1, gpus_per_worker=0.5), machines())
    assert steps_at_once(half) == 2
    apart = Request(workers=2, cpus_per_worker=1, gpus_per_worker=0, placement="STRICT_SPREAD")
    try:
        assert len(set(workers.run(where, settle(apart, machines())))) == 2
        with ThreadPoolExecutor(2) as threads:
            gpus = [threads.submit(workers.run, gpu_ids, half) for _ in range(2)]
            assert [each.result(300) for each in gpus] == [["0"], ["0"]]
    finally:
        workers.dismiss()
        ray.shutdown()


@SOAK
def test_room_that_other_work_holds_is_waited_for_longer_than_ray_train_does(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "3")
    both = settle(Request(cpus_per_worker=2, gpus_per_worker=0), machines())
    actor: Any = ray.remote(OtherWork)
    other = actor.options(num_cpus=2).remote()
    ray.get(other.begin.remote())
    told: list[str] = []
    quick = Retries(controller_failures=0, restarts=0, full_seconds=1, room_look_seconds=0.5)
    try:
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(
                workers.run, where, both, retries=quick, waiting=Waiting(told.append)
            )
            time.sleep(20)
            assert not waiting.done()
            ray.kill(other)
            assert len(waiting.result(120)) == 1
        assert told == [
            "no room is free for a worker with 2 CPUs: "
            "waiting until other work ends or a machine comes"
        ]
    finally:
        workers.dismiss()
        ray.shutdown()


class OtherWork:
    """Holds room of the cluster."""

    def begin(self) -> None:
        pass


def where(runtime: Runtime) -> list[str]:
    """Return the node of each worker."""
    mine = ray.get_runtime_context().get_node_id()
    found: list[Any] = [None] * runtime.world_size
    distributed.all_gather_object(found, mine)
    return found


def gpu_ids(runtime: Runtime) -> list[str]:
    """Return the GPUs that Ray gave this worker."""
    return ray.get_runtime_context().get_accelerator_ids()["GPU"]


@SOAK
def test_a_machine_that_left_is_waited_for_until_it_is_back(
    cluster: Any, store: Store, tmp_path: Path
) -> None:
    cluster.add_node(num_cpus=1)
    node = cluster.add_node(num_cpus=2, resources={"fast_disk": 1})
    cluster.wait_for_nodes()
    log = tmp_path / "log.txt"
    job = start(TRAIN.split(), cluster, store, log)
    try:
        wait_for(lambda: has_checkpoint(store), job, log)
        cluster.remove_node(node)
        wait_for(lambda: "because it lost machines" in log.read_text(), job, log)
        cluster.add_node(num_cpus=2, resources={"fast_disk": 1})
        assert job.wait(timeout=600) == 0, log.read_text()
    finally:
        job.kill()
    printed = " ".join(log.read_text().split())
    assert "0 of 1 workers with 2 CPUs and 1 fast_disk each" in printed
    assert "a machine is back: training goes on" in printed
    assert read_step_records(store)[0].resources["resumed_from"] > 0
