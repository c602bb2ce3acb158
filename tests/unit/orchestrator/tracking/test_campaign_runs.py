"""A campaign in MLflow shows what its tables show, and its chains name it."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator.planning.campaign import Campaign
from orchestrator.planning.campaign_record import CampaignRecord, campaign_tree, find_campaign
from orchestrator.records.repository import Repository
from orchestrator.report.campaign_results import CampaignResult, load_campaign_results
from orchestrator.report.campaign_tables import scores_table
from orchestrator.report.render import to_json
from orchestrator.store.base import Store
from orchestrator.tracking.campaign_runs import campaign_runs
from orchestrator.tracking.tracker import Tracker
from tests.support.mlflow_runs import runs_of_kind
from training.metrics import wilson


@pytest.fixture(scope="module")
def recorded(finished_campaign: tuple[Campaign, Store]) -> tuple[CampaignRecord, CampaignResult]:
    campaign, store = finished_campaign
    record = find_campaign(store, campaign.name)
    assert record
    return record, load_campaign_results(
        campaign, campaign_tree(campaign, store), Repository(store), wilson()
    )


def test_a_campaign_has_a_run_with_its_table_figures_and_page(
    recorded: tuple[CampaignRecord, CampaignResult], campaign_uri: str
):
    (run,) = runs_of_kind(campaign_uri, "campaign")
    client = MlflowClient(campaign_uri)
    assert client.get_experiment(run.info.experiment_id).name == "campaigns"
    assert (run.info.run_name, run.info.status) == ("hardness", "FINISHED")
    assert run.data.params["varied.method.alpha"] == "0, 0.5, 1"
    table = scores_table(recorded[1])
    index = [(column.group, column.name) for column in table.columns].index(("all", "mean"))
    for row in table.rows:
        name = row.name.replace("=", " ")
        assert run.data.metrics[f"all/{name}"] == row.values[index]
        assert run.data.metrics[f"all std/{name}"] == row.values[index + 1]
    assert len(run.data.metrics) == 6 * 3 * 2
    folder = Path(client.download_artifacts(run.info.run_id, "tables"))
    shown = json.loads((folder / "scores.json").read_text())
    assert shown == json.loads(json.dumps(to_json(table)))
    figures = {artifact.path for artifact in client.list_artifacts(run.info.run_id, "figures")}
    axes = {"figures/method.alpha.svg", "figures/method.prior.svg"}
    assert axes | {"figures/breakdown.svg"} <= figures
    assert "report.html" in {artifact.path for artifact in client.list_artifacts(run.info.run_id)}


def test_chains_name_the_campaign_that_asks_for_them(campaign_uri: str):
    chains = runs_of_kind(campaign_uri, "chain")
    assert len(chains) == 12
    assert all(run.data.tags["stepchain.campaign.hardness"] == "yes" for run in chains)
    assert all(run.info.status == "FINISHED" for run in chains)


def test_reported_by_a_tracker_it_is_the_same(
    recorded: tuple[CampaignRecord, CampaignResult], campaign_uri: str, uri: str, tmp_path: Path
):
    with Tracker(uri, tmp_path / "spool") as tracker:
        tracker.report(campaign_runs(*recorded)[:1])
    (live,), (rebuilt,) = runs_of_kind(uri, "campaign"), runs_of_kind(campaign_uri, "campaign")
    assert live.data.metrics == rebuilt.data.metrics
    assert live.data.params == rebuilt.data.params
    assert live.data.tags == rebuilt.data.tags
