"""A campaign brings views that MLflow's page understands."""

import json
import shutil
import zlib
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mlflow import MlflowClient

from orchestrator.planning.campaign import Campaign
from orchestrator.planning.campaign_record import campaign_tree, find_campaign
from orchestrator.records.repository import Repository
from orchestrator.report.campaign_results import load_campaign_results
from orchestrator.store.base import Store
from orchestrator.tracking.campaign_runs import campaign_runs
from orchestrator.tracking.mlflow_client import RunClient
from orchestrator.tracking.saved_views import TAG
from tests.support.mlflow_runs import experiment_tags, runs_of_kind
from training.metrics import plop, wilson

SCENARIO = "digits 6-4 overlap"


def states_of(tags: Mapping[str, str]) -> dict[str, Any]:
    """Return the state of each view among an experiment's tags, by name, as MLflow reads it."""
    views = [json.loads(value) for name, value in tags.items() if name.startswith(TAG)]
    states = {}
    for view in views:
        packed = b64decode(view["state"].removeprefix("deflate;"))
        states[view["name"]] = json.loads(zlib.decompress(packed))
    return states


def test_views_of_chains_without_background_do_not_draw_it(
    finished_campaign: tuple[Campaign, Store],
):
    campaign, store = finished_campaign
    record = find_campaign(store, campaign.name)
    assert record
    tree = campaign_tree(campaign, store)
    result = load_campaign_results(campaign, tree, Repository(store), plop())
    chains = []
    for plan in result.chains:
        scenario = plan.chain.scenario.model_copy(update={"background": "none"})
        chains.append(replace(plan, chain=plan.chain.model_copy(update={"scenario": scenario})))
    for each, drawn in ((result, True), (replace(result, chains=tuple(chains)), False)):
        (views,) = [run.views for run in campaign_runs(record, each) if run.views]
        charts = states_of(views)["hardness by method.prior"]["compareRunCharts"]
        shown = {chart["metricKey"] for chart in charts}
        assert ("iou/background" in shown) == drawn
        assert any("with_background" in metric for metric in shown) == drawn
        assert "iou/0" in shown


def test_a_campaign_offers_views_of_what_was_varied(campaign_uri: str):
    views = states_of(experiment_tags(campaign_uri, SCENARIO))
    assert sorted(views) == ["hardness", "hardness by method.alpha", "hardness by method.prior"]
    every, prior = views["hardness"], views["hardness by method.prior"]
    assert every["searchFilter"] == "tags.`stepchain.campaign.hardness` = 'yes'"
    axes = next(chart for chart in every["compareRunCharts"] if chart["type"] == "PARALLEL")
    assert sorted(axes["selectedParams"]) == ["method.alpha", "method.prior"]
    assert prior["groupBy"]["groupByKeys"] == [{"mode": "param", "groupByData": "method.prior"}]
    chain = runs_of_kind(campaign_uri, "chain")[0].data
    shown = {chart["metricKey"] for chart in prior["compareRunCharts"]}
    shown |= set(axes["selectedMetrics"])
    assert shown <= chain.metrics.keys(), "all that is drawn is there"
    assert {f"iou/{digit}" for digit in range(10)} <= shown
    assert set(axes["selectedParams"]) <= chain.params.keys()


def test_a_view_that_a_person_changed_stays(
    finished_campaign: tuple[Campaign, Store], campaign_uri: str, uri: str
):
    campaign, store = finished_campaign
    shutil.copy(campaign_uri.removeprefix("sqlite:///"), uri.removeprefix("sqlite:///"))
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(SCENARIO)
    assert experiment is not None
    name = next(name for name in experiment.tags if name.startswith(TAG))
    client.set_experiment_tag(experiment.experiment_id, name, "mine")
    record = find_campaign(store, campaign.name)
    assert record
    result = load_campaign_results(
        campaign, campaign_tree(campaign, store), Repository(store), wilson()
    )
    (run,) = (run for run in campaign_runs(record, result) if run.views)
    RunClient(uri).put(run)
    assert experiment_tags(uri, SCENARIO) == experiment.tags | {name: "mine"}
