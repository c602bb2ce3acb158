"""One campaign submitted twice at the same time, as two people would: the work is shared, and nothing is trained twice."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from orchestrator.datasets.catalog import publish
from orchestrator.records.attempts import attempt_names
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from tests.support.datasets import build_dataset
from training.data.digits import Digits

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]
CAMPAIGN = '''"""Do two submissions share their work?"""

from stepchain.presets import digits_mib
from orchestrator.planning.campaign import sweep, with_field


def chains():
    start = with_field(digits_mib(), "scenario.groups", (("0", "1", "2"), ("3", "4")))
    for optimization in ("base.optimization", "optimization"):
        start = with_field(with_field(start, optimization + ".batch", 8), optimization + ".epochs", 4)
    return sweep(start, {"method.distillation_weight": (5, 10, 20)})
'''


def test_two_submissions_at_once_train_each_step_once(tmp_path: Path) -> None:
    (tmp_path / "shared.py").write_text(CAMPAIGN)
    store = open_store(str(tmp_path / "store"))
    manifest, _ = build_dataset(Digits(seed=2, train=120, val=12), tmp_path / "built")
    publish(store, "digits", tmp_path / "built", manifest)
    logs = [tmp_path / f"job-{number}.log" for number in (1, 2)]
    jobs = [start(store, tmp_path, log) for log in logs]
    assert [job.wait(timeout=500) for job in jobs] == [0, 0], "\n".join(
        log.read_text() for log in logs
    )
    published = [
        name.split("/")[1] for name in store.list("steps/") if name.endswith("/record.json")
    ]
    assert len(published) == 4
    assert Counter(len(attempt_names(store, key)) for key in published) == {1: 4}, (
        "a step was trained twice"
    )


def start(store: Store, scratch: Path, log: Path) -> subprocess.Popen:
    command = [
        sys.executable,
        "-m",
        "jobs.campaign",
        "run",
        str(scratch / "shared.py"),
        "--store",
        store.uri,
    ]
    environment = os.environ | {"STEPCHAIN_CACHE": str(scratch / "cache"), "OMP_NUM_THREADS": "1"}
    with log.open("w") as file:
        return subprocess.Popen(
            [*command, "--no-tracking", "--cpus-per-worker", "1"],
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
