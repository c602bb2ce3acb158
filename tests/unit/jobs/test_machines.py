"""A job says what its machines give before anything is trained."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from jobs.machines import check_machines
from orchestrator.cluster.packing import Machines
from orchestrator.execution.context import RunContext
from orchestrator.planning.memory import MemoryNeed
from orchestrator.planning.planner import plan_chain
from orchestrator.store.base import Store
from stepchain.presets import digits_finetuning
from tests.support.datasets import publish_digits
from training.memory_estimate import MemoryEstimate


def test_a_job_says_what_each_worker_gets(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = Machines(({"CPU": 4.0, "orchestrator": 64.0, "memory": 64e9},))
    monkeypatch.setattr("jobs.machines.connect", lambda: None)
    monkeypatch.setattr("jobs.machines.machines", lambda: machines)
    monkeypatch.setattr("orchestrator.execution.context.machines", lambda: machines)
    shown = StringIO()
    context = RunContext(store, console=Console(file=shown, width=1000))
    publish_digits(store, tmp_path / "built", seed=1, train=60, val=8)
    step = plan_chain(digits_finetuning(), store).steps[0]
    estimate = MemoryEstimate(fixed=1, saved=1, peak=1)
    check_machines([MemoryNeed(step, estimate)], context)
    assert "CPUs" in shown.getvalue()
