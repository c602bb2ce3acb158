"""MLflow made from records shows campaigns as their tables do, and no run stays running that nobody is at."""

import json
import shutil
import time
import zlib
from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun

from orchestrator.analysis.record import publish_analysis
from orchestrator.planning.campaign_record import campaign_tree, find_campaign, publish_campaign
from orchestrator.planning.chain import Chain
from orchestrator.planning.resolver import PlannedStep
from orchestrator.records import layout
from orchestrator.records.repository import Repository
from orchestrator.records.results import load_chains
from orchestrator.report.campaign_results import load_campaign_results
from orchestrator.report.campaign_tables import scores_table
from orchestrator.report.render import to_json
from orchestrator.store.lease import Lease
from orchestrator.tracking.campaign_runs import campaign_runs
from orchestrator.tracking.mlflow_client import RunClient
from orchestrator.tracking.rebuild import rebuild
from orchestrator.tracking.runs import build_chain_run, build_step_run
from orchestrator.tracking.saved_views import TAG
from orchestrator.tracking.tracker import Tracker
from training.metrics import wilson

LONG_AGO = int(1000 * (time.time() - 7200))


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    RunClient(f"sqlite:///{path}")
    return path


@pytest.fixture
def uri(empty_database: Path, tmp_path: Path) -> str:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture(scope="module")
def synced(
    finished_campaign, tmp_path_factory: pytest.TempPathFactory, empty_database: Path
) -> str:
    """An MLflow made from the finished campaign's store."""
    path = tmp_path_factory.mktemp("synced") / "mlflow.db"
    shutil.copy(empty_database, path)
    rebuild(finished_campaign[1], f"sqlite:///{path}", wilson())
    return f"sqlite:///{path}"


def runs(uri: str, kind: str) -> list[MlflowRun]:
    client = MlflowClient(uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, f"tags.`stepchain.kind` = '{kind}'"))


def test_a_campaign_has_a_run_with_its_table_figures_and_page(finished_campaign, synced) -> None:
    campaign, store = finished_campaign
    (run,) = runs(synced, "campaign")
    client = MlflowClient(synced)
    assert client.get_experiment(run.info.experiment_id).name == "campaigns"
    assert (run.info.run_name, run.info.status) == ("hardness", "FINISHED")
    assert run.data.params["varied.method.alpha"] == "0, 0.5, 1"
    result = load_campaign_results(campaign, campaign_tree(campaign, store), store, wilson())
    table = scores_table(result)
    index = [(column.group, column.name) for column in table.columns].index(("all", "mean"))
    for row in table.rows:
        name = row.name.replace("=", " ")
        assert run.data.metrics[f"all/{name}"] == row.values[index]
        assert run.data.metrics[f"all std/{name}"] == row.values[index + 1]
    assert len(run.data.metrics) == 6 * 3 * 2
    folder = Path(client.download_artifacts(run.info.run_id, "tables"))
    assert json.loads((folder / "scores.json").read_text()) == json.loads(
        json.dumps(to_json(table))
    )
    figures = {artifact.path for artifact in client.list_artifacts(run.info.run_id, "figures")}
    assert {"figures/method.alpha.svg", "figures/method.prior.svg", "figures/flow.svg"} <= figures
    assert "report.html" in {artifact.path for artifact in client.list_artifacts(run.info.run_id)}


def test_chains_say_which_campaign_wants_them(synced) -> None:
    chains = runs(synced, "chain")
    assert len(chains) == 12
    assert all(run.data.tags["stepchain.campaign.hardness"] == "yes" for run in chains)
    assert all(run.info.status == "FINISHED" for run in chains)


def test_a_campaign_offers_views_of_what_was_varied(synced) -> None:
    views = saved(synced)
    assert sorted(views) == ["hardness", "hardness by method.alpha", "hardness by method.prior"]
    every, prior = views["hardness"], views["hardness by method.prior"]
    assert every["searchFilter"] == "tags.`stepchain.campaign.hardness` = 'yes'"
    axes = next(chart for chart in every["compareRunCharts"] if chart["type"] == "PARALLEL")
    assert sorted(axes["selectedParams"]) == ["method.alpha", "method.prior"]
    assert prior["groupBy"]["groupByKeys"] == [{"mode": "param", "groupByData": "method.prior"}]
    params, metrics = runs(synced, "chain")[0].data.params, runs(synced, "chain")[0].data.metrics
    shown = {chart["metricKey"] for chart in prior["compareRunCharts"]} | set(
        axes["selectedMetrics"]
    )
    assert shown <= metrics.keys(), "all that is drawn is there"
    assert {f"iou/{digit}" for digit in range(10)} <= shown
    assert set(axes["selectedParams"]) <= params.keys()


def test_a_view_that_a_person_changed_stays(finished_campaign, synced, uri) -> None:
    campaign, store = finished_campaign
    shutil.copy(synced.removeprefix("sqlite:///"), uri.removeprefix("sqlite:///"))
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("digits 6-4 overlap")
    name = next(name for name in experiment.tags if name.startswith(TAG))
    client.set_experiment_tag(experiment.experiment_id, name, "mine")
    record = find_campaign(store, campaign.name)
    assert record
    result = load_campaign_results(campaign, campaign_tree(campaign, store), store, wilson())
    (bringer,) = (run for run in campaign_runs(record, result) if run.views)
    RunClient(uri).put(bringer)
    tags = client.get_experiment(experiment.experiment_id).tags
    assert tags == experiment.tags | {name: "mine"}


def saved(uri: str) -> dict[str, Any]:
    """The state of each view in the scenario's experiment, by name, read as MLflow's page does."""
    tags = MlflowClient(uri).get_experiment_by_name("digits 6-4 overlap").tags
    views = [json.loads(value) for name, value in tags.items() if name.startswith(TAG)]
    return {
        view["name"]: json.loads(zlib.decompress(b64decode(view["state"].removeprefix("deflate;"))))
        for view in views
    }


def test_told_by_a_tracker_it_is_the_same(finished_campaign, synced, uri, tmp_path) -> None:
    campaign, store = finished_campaign
    record = find_campaign(store, campaign.name)
    assert record
    result = load_campaign_results(campaign, campaign_tree(campaign, store), store, wilson())
    with Tracker(uri, tmp_path / "spool") as tracker:
        tracker.report(campaign_runs(record, result)[:1])
    (live,), (made,) = runs(uri, "campaign"), runs(synced, "campaign")
    assert (live.data.metrics, live.data.params, live.data.tags) == (
        made.data.metrics,
        made.data.params,
        made.data.tags,
    )


def test_a_campaign_whose_dataset_is_gone_is_left_out_and_named(
    finished_campaign, store, uri
) -> None:
    publish_campaign(store, finished_campaign[0])
    found = rebuild(store, uri, wilson())
    assert found.runs == 0
    assert found.left_out[0].startswith("hardness: ")


def test_analyses_stand_below_their_chains(store, publish_chain, uri) -> None:
    (result,) = load_chains(Repository(store), [publish_chain(store, "asked why")])
    analysis = publish_analysis(store, result, (0, 1), (), {})
    for _ in range(2):
        rebuild(store, uri, wilson())
        (run,), (chain,) = runs(uri, "analysis"), runs(uri, "chain")
        assert (run.info.run_name, run.info.status) == ("why step 1 forgot step 0", "FINISHED")
        assert run.data.tags["mlflow.parentRunId"] == chain.info.run_id
        assert run.data.tags["stepchain.record"] == f"analyses/{analysis.key}.json"
        assert run.data.metrics["miou earlier/after"] == pytest.approx(
            chain.data.metrics["final/miou/old"]
        )
        assert run.data.metrics["miou new/after"] == pytest.approx(
            chain.data.metrics["final/miou/new"]
        )
    page = MlflowClient(uri).download_artifacts(run.info.run_id, "analysis.html")
    assert "What would have helped" in Path(page).read_text()


def test_runs_that_nobody_is_at_are_ended(store, publish_chain, uri) -> None:
    published = publish_chain(store, "half done")
    (result,) = load_chains(Repository(store), [published])
    store.delete(f"chains/{published.key}.json")
    chain, records = (
        Chain.model_validate(result.record.chain),
        [step.record for step in result.steps],
    )
    steps = [
        PlannedStep(r.index, r.step, f"{r.index}" * 16, r.parent, r.class_names, np.arange(3))
        for r in records
    ]
    alive, dead, young = (
        build_chain_run(
            chain.model_copy(update={"name": name}), [step.key for step in steps], LONG_AGO
        )
        for name in ("a", "b", "c")
    )
    alive = alive.model_copy(update={"tags": {"stepchain.step.0": "e" * 16}})
    young = young.model_copy(update={"began": int(1000 * time.time())})
    mirror = RunClient(uri)
    for run in (alive, dead, young):
        mirror.put(run)
    mirror.put(build_step_run(steps[1], chain.scenario.title, records[1].data, None, LONG_AGO))
    mirror.put(build_step_run(records[0], chain.scenario.title, records[0].data, None, LONG_AGO))
    lease = Lease(store, layout.step_lease("e" * 16), "ada@node", period=60)
    assert lease.acquire()
    assert rebuild(store, uri, wilson()).closed == 3
    assert {run.info.run_name: run.info.status for run in runs(uri, "chain")} == {
        "a": "RUNNING",
        "b": "KILLED",
        "c": "RUNNING",
    }
    ended = {run.data.tags["stepchain.key"]: run for run in runs(uri, "step")}
    assert ended[steps[1].key].info.status == "KILLED"
    finished = ended[records[0].key]
    assert finished.info.status == "FINISHED", "it is published, though no chain names it yet"
    assert len(MlflowClient(uri).get_metric_history(finished.info.run_id, "loss")) == len(
        result.steps[0].curves
    )
    assert rebuild(store, uri, wilson()).closed == 0
