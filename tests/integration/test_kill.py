"""`kill -9` of a whole job in mid-step: the same command again finishes it, and the weights are those of an undisturbed run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.datasets import publish
from orchestrator.record import StepRecord
from orchestrator.store import Store, open_store
from training.data.digits import Digits
from training.data.shards import build

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]
JOB = (
    "digits_wilson --groups 0,1,2 3,4 --base.optimization.epochs 3 --optimization.epochs 12 --base.optimization.batch 8 "
    "--optimization.batch 8 --method.warmup_epochs 1 --no-tracking --checkpoint-every 0.2 --cpus-per-worker 1"
)


def test_a_job_killed_in_mid_step_ends_with_the_same_weights(tmp_path: Path) -> None:
    disturbed, quiet = (new_store(tmp_path / name) for name in ("disturbed", "quiet"))
    job = start(disturbed, tmp_path)
    wait_for_a_checkpoint_of_the_last_step(disturbed, job, tmp_path)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    (base,) = records(disturbed)

    for store in (disturbed, quiet):
        job = start(store, tmp_path)
        assert job.wait(timeout=500) == 0, (tmp_path / "job.log").read_text()
    killed, undisturbed = records(disturbed)[-1], records(quiet)[-1]
    assert base in records(disturbed), "what was published before the kill was trained again"
    assert killed.resources["resumed_from"] > 0
    assert undisturbed.resources["resumed_from"] == 0
    assert killed.key == undisturbed.key
    for name in ("model.safetensors", "state.safetensors"):
        assert killed.files[name] == undisturbed.files[name], f"{name} differs"


def new_store(folder: Path) -> Store:
    store = open_store(str(folder))
    manifest, _ = build(Digits(seed=2, train=120, val=12), folder / "built")
    publish(store, "digits", folder / "built", manifest)
    return store


def start(store: Store, scratch: Path) -> subprocess.Popen:
    """The job in a process group of its own, as a terminal would start it."""
    command = [sys.executable, "-m", "jobs.train", *JOB.split(), "--store", store.uri]
    environment = os.environ | {"STEPCHAIN_CACHE": str(scratch / "cache")}
    with (scratch / "job.log").open("w") as log:
        return subprocess.Popen(command, env=environment, start_new_session=True, stdout=log, stderr=subprocess.STDOUT)


def wait_for_a_checkpoint_of_the_last_step(store: Store, job: subprocess.Popen, scratch: Path) -> None:
    while job.poll() is None:
        published = {name.split("/")[1] for name in store.list("steps/") if name.endswith("record.json")}
        done = [name for name in store.list("steps/") if name.endswith("/done.json")]
        if published and any(name.split("/")[1] not in published for name in done):
            return
        time.sleep(0.05)
    raise AssertionError(f"the job ended before it could be killed: {(scratch / 'job.log').read_text()}")


def records(store: Store) -> list[StepRecord]:
    """All step records, in the order of the chain."""
    names = [name for name in store.list("steps/") if name.endswith("record.json")]
    return sorted((StepRecord.model_validate_json(store.read(name)) for name in names), key=lambda record: record.index)
