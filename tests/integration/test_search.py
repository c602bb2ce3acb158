"""A searched campaign is killed on Ray in mid-search, and continued: one list, no step twice."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.searches import sample_list, write_search
from tests.support.stored_steps import step_record_names

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(900)]
SAMPLES = 3


def test_a_killed_search_continues_its_list(tmp_path: Path) -> None:
    store, file = write_search(tmp_path, samples=SAMPLES, epochs=1)
    command = [sys.executable, "-m", "jobs.campaign", "run", str(file), "--store", store.uri]
    command += ["--no-tracking", "--cpus-per-worker", "1", "--max-concurrent", "1"]
    command += ["--lease-seconds", "3"]
    environment = os.environ | {"STEPCHAIN_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    with (tmp_path / "killed.log").open("w") as log:
        job = subprocess.Popen(
            command, env=environment, start_new_session=True, stdout=log, stderr=subprocess.STDOUT
        )
    # Step 0 and the step of the first sample.
    while len(step_record_names(store)) < 2:
        assert job.poll() is None, (tmp_path / "killed.log").read_text()
        time.sleep(0.05)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    before = sample_list(store)
    records = {name: store.read(name) for name in step_record_names(store)}
    assert 1 <= len(before) < SAMPLES
    continued = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False
    )
    assert continued.returncode == 0, continued.stdout + continued.stderr
    after = sample_list(store)
    assert before.items() <= after.items()
    assert len(after) == SAMPLES
    assert len(step_record_names(store)) == 1 + SAMPLES
    assert records.items() <= {name: store.read(name) for name in step_record_names(store)}.items()
    assert f"Best of {SAMPLES} by mean mIoU over its seeds: alpha=" in continued.stdout
