"""Workers stay between two pieces of work, and end when they are lost, fail, idle or do not fit."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import torch
from ray._private.internal_api import memory_summary

from benchmarks.process_starts import measure
from orchestrator.cluster import ray_tune, workers
from orchestrator.cluster.connection import connect
from orchestrator.cluster.ray_train import LEFT_OUT
from orchestrator.cluster.resources import Resources
from orchestrator.cluster.tune_seams import forget
from orchestrator.cluster.waiting import waits_for_room
from orchestrator.store.retries import Retries
from tests.support.marks import on_ray
from training.runtime import Runtime

pytestmark = on_ray(600)
ONE = Resources(
    workers=1, cpus_per_worker=1, gpus_per_worker=0, loader_workers=0, checkpoint_every=60
)
TWO = ONE.model_copy(update={"workers": 2})


@pytest.fixture
def cluster() -> Iterator[None]:
    connect()
    yield
    workers.dismiss()
    ray.shutdown()


def process_id(runtime: Runtime) -> int:
    return os.getpid()


def fail(runtime: Runtime) -> None:
    raise ValueError("no such thing")


def sum_over_workers(runtime: Runtime) -> tuple[int, float]:
    return os.getpid(), runtime.all_sum(torch.ones(1)).item()


def run_again(work: Callable[[Runtime], Any], resources: Resources = ONE) -> Any:
    """Run work, and run it once more when the workers turn out to be lost."""
    return workers.run_until_done(work, resources, Retries(restarts=1))


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 60
    while psutil.pid_exists(pid):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def rest_once(begun: Path, runtime: Runtime) -> int:
    """Rest for longer than the test, but return at once when called again."""
    if not begun.exists():
        begun.write_text(str(os.getpid()))
        time.sleep(900)
    return os.getpid()


def kill_actor(name: str) -> None:
    family = psutil.Process().children(recursive=True)
    (actor,) = [each for each in family if name in each.name()]
    actor.kill()


def test_workers_stay_until_they_are_lost_or_fail(cluster: None):
    first = workers.run(process_id, ONE)
    assert workers.run(process_id, ONE) == first

    # Between two pieces of work.
    os.kill(first, signal.SIGKILL)
    second = run_again(process_id)
    assert second != first

    kill_actor("TrainController")
    wait_until_gone(second)
    third = run_again(process_id)

    with pytest.raises(workers.WorkersFailed, match="ValueError: no such thing") as caught:
        workers.run(fail, ONE)
    assert isinstance(caught.value.reason, ValueError)
    assert "no such thing" in caught.value.details
    wait_until_gone(third)

    # The room of workers with other resources is given back before others start.
    fourth = workers.run(process_id, ONE)
    fifth, total = workers.run(sum_over_workers, TWO)
    wait_until_gone(fourth)
    assert total == 2
    assert workers.run(sum_over_workers, TWO) == (fifth, 2)


def test_work_is_done_again_when_the_mailbox_is_lost(cluster: None, tmp_path: Path):
    first = workers.run(process_id, ONE)
    kill_actor("Mailbox")
    second = run_again(process_id)
    assert second != first

    # While the workers are at work.
    begun = tmp_path / "begun"
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(run_again, partial(rest_once, begun))
        while not begun.exists():
            time.sleep(0.1)
        time.sleep(2)
        kill_actor("Mailbox")
        assert work.result() != second
    wait_until_gone(second)


class Trial:
    """A process of the cluster that trains."""

    def pid(self) -> int:
        return os.getpid()

    def train(self, begun: Path, resources: Resources) -> int:
        return workers.run(partial(rest_once, begun), resources)


def test_room_that_lost_processes_hold_or_wait_for_is_given_back(cluster: None, tmp_path: Path):
    whole = ONE.model_copy(update={"cpus_per_worker": int(ray.cluster_resources()["CPU"])})
    actor: Any = ray.remote(Trial)
    trials = [actor.options(num_cpus=0).remote() for _ in range(2)]
    pids: list[Any] = [ray.get(trial.pid.remote()) for trial in trials]
    begun = tmp_path / "begun"
    trials[0].train.remote(begun, whole)
    while not begun.exists():
        time.sleep(0.1)
    trials[1].train.remote(begun, whole)
    while not waits_for_room(whole):
        time.sleep(0.1)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert run_again(process_id, whole) not in pids
    workers.dismiss()
    deadline = time.monotonic() + 30
    while ray.available_resources().get("CPU") != whole.cpus_per_worker:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_idle_workers_leave_and_threads_get_workers_of_their_own(cluster: None):
    impatient = Retries(team_idle_seconds=1)
    with ThreadPoolExecutor(2) as pool:
        started = [pool.submit(workers.run, process_id, ONE, None, impatient) for _ in range(2)]
        pids = {each.result() for each in started}
    assert len(pids) == 2
    for pid in pids:
        wait_until_gone(pid)
    assert workers.run(process_id, ONE) not in pids


def test_every_slot_gets_a_process_though_trials_are_short(cluster: None):
    assert len(measure(count=24, slots=3, seconds=1).came) == 3


def test_ray_train_still_has_the_parts_that_are_left_out():
    """If this fails, Ray has renamed them: see `orchestrator.cluster.ray_train`."""
    from ray.train.torch import TorchTrainer

    trainer = TorchTrainer(lambda: None)
    names = {type(each).__name__ for each in trainer._create_default_callbacks()}
    assert names >= LEFT_OUT


def test_a_specification_leaves_the_object_store_with_its_trial(cluster: None) -> None:
    def count() -> int:
        told = memory_summary(stats_only=True)
        return int(told.split("Plasma memory usage")[1].split(",")[1].split()[0])

    handle = ray.put(b"x" * (1 << 20))
    assert len(ray.get(ray_tune._decode(ray_tune._encode(handle)))) == 1 << 20
    assert count() == 1
    forget(handle)
    del handle
    deadline = time.monotonic() + 30
    while count():
        assert time.monotonic() < deadline
        time.sleep(0.2)
