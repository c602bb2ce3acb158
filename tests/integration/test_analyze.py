"""`python -m jobs.analyze` records answers, shows them, reports them, and asks only once."""

import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest
import ray
from mlflow import MlflowClient

from jobs.analyze import main
from orchestrator.analysis.record import load_analysis, recorded_analyses
from orchestrator.cluster.resources import Request
from orchestrator.cluster.workers import dismiss
from orchestrator.execution.context import RunContext
from orchestrator.execution.ensure import ensure_chain
from orchestrator.planning.chain import Base, Chain
from orchestrator.planning.planner import plan_chain
from orchestrator.records.repository import Repository
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from orchestrator.tracking.mlflow_client import RunClient
from orchestrator.tracking.rebuild import rebuild
from tests.support.datasets import publish_digits
from tests.support.marks import on_ray
from tests.support.mlflow_runs import runs_of_kind
from training.config import Augmentation, EvaluationConfig, ModelConfig, Optimization
from training.methods import fine_tuning
from training.metrics import wilson
from training.scenario import Scenario

pytestmark = on_ray(900)
FEW = Optimization(epochs=1, batch=4, encoder_lr=0.02, head_lr=0.02)
CHAIN = Chain(
    name="asked why",
    scenario=Scenario(dataset="digits", groups=(("0", "1", "2"), ("3", "4")), supervision="pixel"),
    base=Base(optimization=FEW),
    method=fine_tuning.Config(),
    optimization=FEW,
    model=ModelConfig(encoder="tiny", output_stride=4, head_channels=8, eval_pooling=8),
    augmentation=Augmentation(crop=32),
    evaluation=EvaluationConfig(short_side=None, crop=None),
)
CUTS = 5
JOINTS = 3


class FirstRun(NamedTuple):
    """The results of the first run."""

    store: Store
    uri: str  # of MLflow
    empty: Path  # an MLflow database without runs
    page: Path


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FirstRun]:
    folder = tmp_path_factory.mktemp("analyze")
    store = open_store(str(folder / "store"))
    publish_digits(store, folder / "dataset", seed=1, train=40, val=6)
    empty = folder / "empty.db"
    analysis = folder / "mlflow.db"
    RunClient(f"sqlite:///{empty}")
    shutil.copy(empty, analysis)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEPCHAIN_CACHE", str(folder / "cache"))
        ensure_chain(plan_chain(CHAIN, store), RunContext(store, Request(cpus_per_worker=1)))
        analyze(store, f"sqlite:///{analysis}", folder / "first")
        yield FirstRun(store, f"sqlite:///{analysis}", empty, folder / "first" / "analysis.html")
    dismiss()
    ray.shutdown()


def analyze(store: Store, uri: str, out: Path) -> None:
    options = {
        "--store": store.uri,
        "--tracking-uri": uri,
        "--out": out,
        "--images": 8,
        "--workers": 2,
        "--cpus-per-worker": 1,
    }
    arguments = ["asked why"]
    for name, value in options.items():
        arguments += [name, str(value)]
    main(arguments)


def test_every_answer_is_recorded_and_the_page_says_them(first_run: FirstRun) -> None:
    (record,) = recorded_analyses(Repository(first_run.store))
    assert len(record.answers) == CUTS * (JOINTS + 1) + 1
    assert sorted(record.answers) == sorted(first_run.store.list("probes/"))
    assert set(record.retrained) == {"classifier", "decoder"}
    analysis = load_analysis(Repository(first_run.store), record)
    cuts = [layer.cut for layer in analysis.layers]
    assert cuts == ["stem", "stage 1", "stage 2", "head", "classifier"]
    for layer in analysis.layers:
        assert layer.cka is not None
        assert set(layer.kept) == {"identity", "least_squares", "trained"}
    for step in analysis.retrained_steps.values():
        assert step.record.parent == analysis.later.record.key
        assert step.record.step.task.labels == "seen"
        assert step.record.resources["workers"] == 2
    page = first_run.page.read_text()
    headings = ("Where forgetting sits", "What would have helped", "What each figure is")
    for words in (*headings, "decoder retrained"):
        assert words in page


def modified_but_for_tracking(store: Store) -> dict[str, datetime]:
    """Return when each object was written, without those that the tracker writes."""
    entries = [entry for entry in store.entries("") if not entry.key.startswith("tracking")]
    return {entry.key: entry.modified for entry in entries}


def test_asking_again_computes_nothing(
    first_run: FirstRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> NoReturn:
        raise AssertionError("nothing is left to compute")

    before = modified_but_for_tracking(first_run.store)
    dismiss()
    ray.shutdown()
    monkeypatch.setattr(ray, "init", refuse)
    analyze(first_run.store, first_run.uri, tmp_path)
    assert modified_but_for_tracking(first_run.store) == before
    assert (tmp_path / "analysis.html").read_text() == first_run.page.read_text()


def test_mlflow_shows_it_and_is_made_again_from_the_records(
    first_run: FirstRun, tmp_path: Path
) -> None:
    (record,) = recorded_analyses(Repository(first_run.store))
    (live,) = runs_of_kind(first_run.uri, "analysis")
    analysis = load_analysis(Repository(first_run.store), record)
    assert live.data.metrics["miou earlier/after"] == pytest.approx(analysis.after.earlier or 0)
    layers = MlflowClient(first_run.uri).get_metric_history(live.info.run_id, "cka")
    expected = [layer.cka for layer in analysis.layers]
    assert {metric.step: metric.value for metric in layers} == dict(enumerate(expected))
    shutil.copy(first_run.empty, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    rebuild(first_run.store, uri, wilson())
    (made,) = runs_of_kind(uri, "analysis")
    assert made.data.metrics == live.data.metrics
    assert made.data.params == live.data.params
    (chain,) = runs_of_kind(uri, "chain")
    runs = [*runs_of_kind(uri, "step"), made]
    parents = [run.data.tags.get("mlflow.parentRunId") for run in runs]
    # The later step, two retrained parts, and the analysis.
    assert parents.count(chain.info.run_id) == 4
