"""A scheduler that stops a job sends SIGTERM: the job ends soon, gives its lease back and closes its runs; the next goes on."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from orchestrator.datasets import publish
from orchestrator.store import open_store
from training.data.digits import Digits
from training.data.shards import build

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]
JOB = (
    "digits_finetuning --groups 0,1,2 3,4 --base.optimization.epochs 80 --optimization.epochs 1 --base.optimization.batch 8 "
    "--optimization.batch 8 --checkpoint-every 0.3 --cpus-per-worker 1"
)


def test_a_stopped_job_leaves_nothing_behind_but_its_checkpoints(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    manifest, _ = build(Digits(seed=2, train=120, val=12), tmp_path / "built")
    publish(store, "digits", tmp_path / "built", manifest)
    command = [sys.executable, "-m", "jobs.train", *JOB.split(), "--store", store.uri]
    submitted = {"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"runtime_env": {}, "metadata": {"job_submission_id": "mine"}})}
    environment = os.environ | {"STEPCHAIN_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"} | submitted
    with (tmp_path / "job.log").open("w") as log:
        job = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        while job.poll() is None and not any(name.endswith("/done.json") for name in store.list("steps/")):
            time.sleep(0.1)
        assert job.poll() is None, (tmp_path / "job.log").read_text()
        family = psutil.Process(job.pid).children(recursive=True)
        job.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        assert job.wait(timeout=120) == 128 + signal.SIGTERM, (tmp_path / "job.log").read_text()
        print(f"ended {time.monotonic() - begun:.1f} s after SIGTERM")
    finally:
        job.kill()
        job.wait()
    _, left = psutil.wait_procs(family, timeout=60)
    assert left == []
    names = list(store.list("steps/"))
    assert any(name.endswith("/done.json") for name in names)
    assert not any(name.endswith(("/lease.json", "/record.json")) for name in names)
    with sqlite3.connect(tmp_path / "store" / "mlflow.db") as database:
        assert {status for (status,) in database.execute("SELECT status FROM runs")} == {"KILLED"}
        jobs = database.execute("SELECT value FROM tags WHERE key = 'stepchain.submission'").fetchall()
    database.close()
    assert jobs == [("mine",)] * 2  # the chain's run and the step's
    assert "the same command goes on" in (tmp_path / "job.log").read_text()
