"""A campaign on a cluster that has no machine to train on until one is asked for."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.store.open import open_store
from tests.support.autoscaler import run_autoscaling_cluster
from tests.support.datasets import publish_digits
from tests.support.paths import ROOT
from tests.support.stored_steps import read_step_records

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(900)]
KINDS = {
    "spot-gpu": {"resources": {"CPU": 13, "GPU": 1}, "node_config": {}, "max_workers": 8},
    "on-demand": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 2},
}
CAMPAIGN = '''"""Does a campaign begin without a machine?"""

from stepchain import digits_finetuning, sweep, with_field


def chains():
    start = with_field(digits_finetuning(), "scenario.groups", (("0", "1", "2"), ("3", "4")))
    for optimization in ("base.optimization", "optimization"):
        start = with_field(start, optimization + ".batch", 8)
        start = with_field(start, optimization + ".epochs", 1)
    return sweep(start, {"seed": (1, 2)})
'''
# What a step would be given, and the resources that the autoscaler then brings.
ASK = """
import ray
from orchestrator.cluster.machines import machines
from orchestrator.cluster.resource_words import describe
from orchestrator.cluster.resources import Request, settle
found = machines()
resources = settle(Request(), found)
print(describe(resources, found))
task = ray.remote(num_cpus=resources.cpus_per_worker, num_gpus=1)(ray.get_gpu_ids)
print("GPUs", ray.get(task.remote(), timeout=300))
"""


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    # The cluster exists for one test, on this machine.
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with run_autoscaling_cluster(tmp_path, KINDS, most=8) as address:
        yield address


def run(command: list[str], address: str, folder: Path) -> str:
    """Run a command of ours as the cluster's driver, and return what it printed."""
    environment = os.environ | {"RAY_ADDRESS": address, "STEPCHAIN_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, *command], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_cluster_scaled_to_zero_trains_on_what_it_can_add(address: str, tmp_path: Path) -> None:
    told = run(["-c", ASK], address, tmp_path)
    assert "each worker gets 1 GPU and 8 CPUs on spot-gpu; up to 8 steps at once" in told
    assert "GPUs [0]" in told

    store = open_store(str(tmp_path / "store"))
    publish_digits(store, tmp_path / "built", seed=2, train=60, val=6)
    (tmp_path / "from_zero.py").write_text(CAMPAIGN)
    command = ["-m", "jobs.campaign", "run", str(tmp_path / "from_zero.py"), "--no-tracking"]
    command += ["--store", store.uri, "--cpus-per-worker", "1", "--gpus-per-worker", "0"]
    printed = run(command, address, tmp_path)
    assert "each worker gets 1 CPU on " in printed
    records = read_step_records(store)
    assert len(records) == 4
    assert all(record.resources["gpus_per_worker"] == 0 for record in records)
