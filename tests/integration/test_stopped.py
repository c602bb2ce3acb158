"""A job that gets SIGTERM ends soon, gives its lease back and closes its runs.

The cluster's scheduler stops jobs in this way. The same command goes on from the last checkpoint.
"""

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

from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from tests.support.datasets import publish_digits

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]
# No checkpoint is due for an hour.
TRAIN = (
    "jobs.train digits_finetuning --groups 0,1,2 3,4 "
    "--base.optimization.epochs 80 --optimization.epochs 1 "
    "--base.optimization.batch 8 --optimization.batch 8 --checkpoint-every 3600 --cpus-per-worker 1"
)
CAMPAIGN = "jobs.campaign run long.py --checkpoint-every 3600 --cpus-per-worker 1"
# Its steps are so long that none is published before the signal arrives on a slow machine.
LONG = '''"""Does a stopped campaign keep its checkpoints?"""

from stepchain import digits_finetuning, sweep, with_field


def chains():
    start = with_field(digits_finetuning(), "scenario.groups", (("0", "1", "2"), ("3", "4")))
    start = with_field(start, "optimization.batch", 8)
    start = with_field(start, "base.optimization.batch", 8)
    start = with_field(start, "base.optimization.epochs", 80)
    return sweep(start, {"seed": (1, 2)})
'''


def has_curves(store: Store) -> bool:
    """Return whether some step has published a piece of its training curve."""
    return any("/curves/" in name for name in store.list("steps/"))


@pytest.mark.parametrize("job", [TRAIN, CAMPAIGN], ids=["train", "campaign"])
def test_a_stopped_job_leaves_a_checkpoint_and_nothing_else(job: str, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    publish_digits(store, tmp_path / "built", seed=2, train=120, val=12)
    campaign = tmp_path / "long.py"
    campaign.write_text(LONG)
    arguments = job.replace("long.py", str(campaign)).split()
    command = [sys.executable, "-m", *arguments, "--store", store.uri]
    # Ray gives a submitted job its name in this variable.
    submitted = json.dumps({"runtime_env": {}, "metadata": {"job_submission_id": "mine"}})
    environment = os.environ | {
        "STEPCHAIN_CACHE": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
        "RAY_JOB_CONFIG_JSON_ENV_VAR": submitted,
    }
    log = tmp_path / "job.log"
    with log.open("w") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
    try:
        while process.poll() is None and not has_curves(store):
            time.sleep(0.1)
        assert process.poll() is None, log.read_text()
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        assert process.wait(timeout=120) == 128 + signal.SIGTERM, log.read_text()
        print(f"ended {time.monotonic() - begun:.1f} s after SIGTERM")
    finally:
        process.kill()
        process.wait()
    _, left = psutil.wait_procs(family, timeout=60)
    assert left == []
    names = list(store.list("steps/"))
    assert any(name.endswith("/done.json") for name in names), log.read_text()
    assert not any(name.endswith(("/lease.json", "/record.json", "/error.txt")) for name in names)
    with sqlite3.connect(tmp_path / "store" / "mlflow.db") as database:
        assert {status for (status,) in database.execute("SELECT status FROM runs")} == {"KILLED"}
        query = "SELECT DISTINCT value FROM tags WHERE key = 'stepchain.submission'"
        jobs = database.execute(query).fetchall()
    database.close()
    assert jobs == [("mine",)]
    assert "the same command resumes" in log.read_text()
