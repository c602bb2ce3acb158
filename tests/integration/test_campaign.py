"""A small campaign on Ray Tune trains each step once.

A failure fails the steps below it and no others, and a second run trains nothing.
"""

from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
import ray
from rich.console import Console

from orchestrator.campaigns.limits import Limits
from orchestrator.campaigns.outcome import CampaignOutcome
from orchestrator.campaigns.run import run_campaign
from orchestrator.cluster.resources import Request
from orchestrator.cluster.workers import dismiss
from orchestrator.execution.context import RunContext
from orchestrator.planning.chain import Base, Chain
from orchestrator.planning.cost import Costs
from orchestrator.planning.planner import Planner
from orchestrator.planning.step_tree import StepTree, build_tree
from orchestrator.planning.store_state import look_up_steps
from orchestrator.records import layout
from orchestrator.records.attempts import attempt_names
from orchestrator.records.repository import Repository
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from orchestrator.store.retries import Retries
from orchestrator.tracking.tracker import Tracker
from tests.support.datasets import publish_digits
from tests.support.marks import on_ray
from training.config import Augmentation, EvaluationConfig, ModelConfig, Optimization
from training.methods import fine_tuning, wilson
from training.scenario import Scenario

pytestmark = on_ray(600)
FEW = Optimization(epochs=2, batch=4, encoder_lr=0.02, head_lr=0.02)
START = Chain(
    name="half",
    scenario=Scenario(dataset="digits", groups=(("0", "1", "2"), ("3", "4"))),
    base=Base(method=fine_tuning.Config(loss="bce"), optimization=FEW),
    method=wilson.Config(warmup_epochs=1, localizer_channels=8),
    optimization=FEW,
    model=ModelConfig(encoder="tiny", output_stride=4, head_channels=8, eval_pooling=16),
    augmentation=Augmentation(crop=64),
    evaluation=EvaluationConfig(short_side=None, crop=None),
)
ONCE = Limits(retries=0)
WILD = FEW.model_copy(update={"encoder_lr": 1e30, "head_lr": 1e30})
HARD = wilson.Config(warmup_epochs=1, localizer_channels=8, alpha=1)
# Three chains of four different steps.
CHAINS = (
    START,
    START.model_copy(update={"name": "wild", "optimization": WILD}),
    START.model_copy(update={"name": "one", "method": HARD}),
)


@pytest.fixture(autouse=True)
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("STEPCHAIN_CACHE", str(tmp_path / "cache"))
    yield
    dismiss()
    ray.shutdown()


def new_store(folder: Path) -> Store:
    store = open_store(str(folder / "store"))
    publish_digits(store, folder / "dataset", seed=1, train=60, val=12)
    return store


def run(
    tree: StepTree, store: Store, tracker: Tracker | None = None, limits: Limits = ONCE
) -> tuple[CampaignOutcome, str]:
    """Run a campaign, and return its outcome and what it printed."""
    console = Console(file=StringIO(), width=200)
    request = Request(cpus_per_worker=1)
    context = RunContext(store, request, console, tracker, retries=Retries(lease_seconds=5))
    outcome = run_campaign("test", tree, look_up_steps(tree, store), context, Costs(), limits)
    assert isinstance(console.file, StringIO)
    return outcome, console.file.getvalue()


def test_a_campaign_runs_once(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    planner = Planner(store)
    tree = build_tree([planner.plan(each) for each in CHAINS])
    with Tracker(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "spool") as tracker:
        outcome, printed = run(tree, store, tracker)
    assert tracker.failures == 0
    assert len(tree.nodes) == 4
    assert [each.state for each in outcome.chains] == ["published", "failed", "published"], printed
    assert "lower the learning rates" in outcome.chains[1].reason
    assert sum(len(attempt_names(store, key)) for key in tree.nodes) == 4, "a step was tried twice"
    assert outcome.gpu_hours > 0
    for key, step in outcome.steps.items():
        record = Repository(store).find_step(key)
        assert (record is not None) == (step.state == "published")
        assert not store.exists(layout.step_lease(key))

    good = build_tree([planner.plan(each) for each in CHAINS if each.name != "wild"])
    again, printed = run(good, store)
    assert again.complete, printed
    assert {step.state for step in again.steps.values()} == {"reused"}

    other = build_tree([planner.plan(START.model_copy(update={"name": "other", "seed": 7}))])
    outcome, printed = run(other, store, limits=Limits(max_gpu_hours=1e-6))
    assert [step.state for step in outcome.steps.values()] == ["published", "not run"], printed
    assert "the budget of 1e-06 GPU-hours is spent" in outcome.chains[0].reason
    assert sum(len(attempt_names(store, key)) for key in tree.nodes) == 4
