"""MLflow made from records shows campaigns as their tables do, and no run stays running that nobody is at."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun

from orchestrator.campaign_record import campaign_tree, find_campaign, publish_campaign
from orchestrator.campaign_results import load_campaign_results
from orchestrator.campaign_runs import campaign_runs
from orchestrator.campaign_tables import scores_table
from orchestrator.chain import Chain
from orchestrator.lease import Lease
from orchestrator.mirror import Mirror
from orchestrator.plan import PlannedStep
from orchestrator.results import load_chains
from orchestrator.runs import chain_run, step_run
from orchestrator.sync import sync
from orchestrator.table import to_json
from orchestrator.tracking import Tracker
from training.metrics import wilson

LONG_AGO = int(1000 * (time.time() - 7200))


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    Mirror(f"sqlite:///{path}")
    return path


@pytest.fixture
def uri(empty_database: Path, tmp_path: Path) -> str:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture(scope="module")
def synced(finished_campaign, tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> str:
    """An MLflow made from the finished campaign's store."""
    path = tmp_path_factory.mktemp("synced") / "mlflow.db"
    shutil.copy(empty_database, path)
    sync(finished_campaign[1], f"sqlite:///{path}", wilson())
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
    assert json.loads((folder / "scores.json").read_text()) == json.loads(json.dumps(to_json(table)))
    figures = {artifact.path for artifact in client.list_artifacts(run.info.run_id, "figures")}
    assert {"figures/method.alpha.svg", "figures/method.prior.svg", "figures/flow.svg"} <= figures
    assert "report.html" in {artifact.path for artifact in client.list_artifacts(run.info.run_id)}


def test_chains_say_which_campaign_wants_them(synced) -> None:
    chains = runs(synced, "chain")
    assert len(chains) == 12
    assert all(run.data.tags["stepchain.campaign.hardness"] == "yes" for run in chains)
    assert all(run.info.status == "FINISHED" for run in chains)


def test_told_by_a_tracker_it_is_the_same(finished_campaign, synced, uri, tmp_path) -> None:
    campaign, store = finished_campaign
    record = find_campaign(store, campaign.name)
    assert record
    result = load_campaign_results(campaign, campaign_tree(campaign, store), store, wilson())
    with Tracker(uri, tmp_path / "spool") as tracker:
        tracker.tell(campaign_runs(record, result)[:1])
    (live,), (made,) = runs(uri, "campaign"), runs(synced, "campaign")
    assert (live.data.metrics, live.data.params, live.data.tags) == (made.data.metrics, made.data.params, made.data.tags)


def test_a_campaign_whose_dataset_is_gone_is_left_out_and_named(finished_campaign, store, uri) -> None:
    publish_campaign(store, finished_campaign[0])
    found = sync(store, uri, wilson())
    assert found.runs == 0
    assert found.left_out[0].startswith("hardness: ")


def test_runs_that_nobody_is_at_are_ended(store, publish_chain, uri) -> None:
    published = publish_chain(store, "half done")
    (result,) = load_chains(store, [published])
    store.delete(f"chains/{published.key}.json")
    chain, records = Chain.model_validate(result.record.chain), [step.record for step in result.steps]
    steps = [PlannedStep(r.index, r.step, f"{r.index}" * 16, r.parent, r.class_names, np.arange(3)) for r in records]
    alive, dead, young = (
        chain_run(chain.model_copy(update={"name": name}), [step.key for step in steps], LONG_AGO) for name in ("a", "b", "c")
    )
    alive = alive.model_copy(update={"tags": {"stepchain.step.0": "e" * 16}})
    young = young.model_copy(update={"began": int(1000 * time.time())})
    mirror = Mirror(uri)
    for run in (alive, dead, young):
        mirror.put(run)
    mirror.put(step_run(steps[1], chain.scenario.title, records[1].data, None, LONG_AGO))
    mirror.put(step_run(records[0], chain.scenario.title, records[0].data, None, LONG_AGO))
    lease = Lease(store, "e" * 16, "ada@node", period=60)
    assert lease.acquire()
    assert sync(store, uri, wilson()).closed == 3
    assert {run.info.run_name: run.info.status for run in runs(uri, "chain")} == {"a": "RUNNING", "b": "KILLED", "c": "RUNNING"}
    ended = {run.data.tags["stepchain.key"]: run for run in runs(uri, "step")}
    assert ended[steps[1].key].info.status == "KILLED"
    finished = ended[records[0].key]
    assert finished.info.status == "FINISHED", "it is published, though no chain names it yet"
    assert len(MlflowClient(uri).get_metric_history(finished.info.run_id, "loss")) == len(result.steps[0].curves)
    assert sync(store, uri, wilson()).closed == 0
