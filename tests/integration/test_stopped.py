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

from orchestrator.datasets.catalog import publish
from orchestrator.store.open import open_store
from tests.support.datasets import build_dataset
from training.data.digits import Digits

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]
# No checkpoint is due for an hour.
TRAIN = (
    "jobs.train digits_finetuning --groups 0,1,2 3,4 --base.optimization.epochs 80 --optimization.epochs 1 "
    "--base.optimization.batch 8 --optimization.batch 8 --checkpoint-every 3600 --cpus-per-worker 1"
)
CAMPAIGN = (
    "jobs.campaign run digits_methods --only seed=42 --checkpoint-every 3600 --cpus-per-worker 1"
)


@pytest.mark.parametrize("job", [TRAIN, CAMPAIGN], ids=["train", "campaign"])
def test_a_stopped_job_leaves_a_checkpoint_and_nothing_else(job: str, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    manifest, _ = build_dataset(Digits(seed=2, train=120, val=12), tmp_path / "built")
    publish(store, "digits", tmp_path / "built", manifest)
    command = [sys.executable, "-m", *job.split(), "--store", store.uri]
    submitted = {
        "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(
            {"runtime_env": {}, "metadata": {"job_submission_id": "mine"}}
        )
    }
    environment = (
        os.environ
        | {"STEPCHAIN_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
        | submitted
    )
    with (tmp_path / "job.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        while process.poll() is None and not any(
            "/curves/" in name for name in store.list("steps/")
        ):
            time.sleep(0.1)
        assert process.poll() is None, (tmp_path / "job.log").read_text()
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        assert process.wait(timeout=120) == 128 + signal.SIGTERM, (tmp_path / "job.log").read_text()
        print(f"ended {time.monotonic() - begun:.1f} s after SIGTERM")
    finally:
        process.kill()
        process.wait()
    _, left = psutil.wait_procs(family, timeout=60)
    assert left == []
    names = list(store.list("steps/"))
    assert any(name.endswith("/done.json") for name in names), (tmp_path / "job.log").read_text()
    assert not any(name.endswith(("/lease.json", "/record.json", "/error.txt")) for name in names)
    with sqlite3.connect(tmp_path / "store" / "mlflow.db") as database:
        assert {status for (status,) in database.execute("SELECT status FROM runs")} == {"KILLED"}
        jobs = database.execute(
            "SELECT DISTINCT value FROM tags WHERE key = 'stepchain.submission'"
        ).fetchall()
    database.close()
    assert jobs == [("mine",)]
    assert "the same command resumes" in (tmp_path / "job.log").read_text()
