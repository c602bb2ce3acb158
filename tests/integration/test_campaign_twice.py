"""A campaign that two people submit at the same time trains each step once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.records.attempts import attempt_names
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from tests.support.datasets import publish_digits
from tests.support.stored_steps import read_step_records

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]
CAMPAIGN = '''"""Do two submissions share their work?"""

from stepchain import digits_mib, sweep, with_field


def chains():
    start = with_field(digits_mib(), "scenario.groups", (("0", "1", "2"), ("3", "4")))
    for optimization in ("base.optimization", "optimization"):
        start = with_field(start, optimization + ".batch", 8)
        start = with_field(start, optimization + ".epochs", 4)
    return sweep(start, {"method.distillation_weight": (5, 10, 20)})
'''


def test_two_submissions_at_once_train_each_step_once(tmp_path: Path) -> None:
    (tmp_path / "shared.py").write_text(CAMPAIGN)
    store = open_store(str(tmp_path / "store"))
    publish_digits(store, tmp_path / "built", seed=2, train=120, val=12)
    logs = [tmp_path / f"job-{number}.log" for number in (1, 2)]
    jobs = [start(store, tmp_path, log) for log in logs]
    codes = [job.wait(timeout=500) for job in jobs]
    assert codes == [0, 0], "\n".join(log.read_text() for log in logs)
    published = [record.key for record in read_step_records(store)]
    assert len(published) == 4
    attempts = [len(attempt_names(store, key)) for key in published]
    assert attempts == [1, 1, 1, 1], "a step was trained twice"


def start(store: Store, scratch: Path, log: Path) -> subprocess.Popen:
    """Start the campaign as a job, as from a shell."""
    command = [sys.executable, "-m", "jobs.campaign", "run", str(scratch / "shared.py")]
    options = ["--store", store.uri, "--no-tracking", "--cpus-per-worker", "1"]
    environment = os.environ | {"STEPCHAIN_CACHE": str(scratch / "cache"), "OMP_NUM_THREADS": "1"}
    with log.open("w") as file:
        return subprocess.Popen(
            [*command, *options], env=environment, stdout=file, stderr=subprocess.STDOUT
        )
