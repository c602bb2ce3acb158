"""Pages in a real browser: reports that need nothing but themselves, and MLflow's own views of a finished campaign.

With STEPCHAIN_SCREENSHOTS=docs/images the pictures of the guides are made anew.
"""

import json
import os
import urllib.parse
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator.campaign_record import campaign_tree
from orchestrator.campaign_report import build_campaign_report, write_campaign_report
from orchestrator.campaign_results import load_campaign_results
from orchestrator.report import build_report, write_report
from orchestrator.results import find_chain, load_chains
from orchestrator.sync import sync
from training.metrics import wilson

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
# MLflow's pages take minutes on a busy machine, and their words change with its versions: asked for, not part of every run.
IN_MLFLOW = pytest.mark.skipif(not os.environ.get("STEPCHAIN_SOAK"), reason="set STEPCHAIN_SOAK=1 to drive MLflow's pages")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(os.environ.get("STEPCHAIN_SCREENSHOTS") or tmp_path_factory.mktemp("pictures"))


@pytest.mark.parametrize("kind", ["chain", "campaign"])
def test_a_report_opens_alone(page, finished_campaign, tmp_path, pictures, kind) -> None:
    campaign, store = finished_campaign
    if kind == "campaign":
        result = load_campaign_results(campaign, campaign_tree(campaign, store), store, wilson())
        path = write_campaign_report(build_campaign_report(result), tmp_path)
    else:
        chains = load_chains(store, [find_chain(store, chain.name) for chain in campaign.chains[:2]])
        path = write_report(build_report(chains, wilson()), tmp_path)
    for dark in (False, True):
        page.size(1200, 900, dark)
        page.open(path.as_uri())
        page.screenshot(pictures / f"report-{kind}{'-dark' if dark else ''}.png")
        assert page.errors == []
        assert [url for url in page.asked if not url.startswith(("data:", path.as_uri()))] == []
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    page.press("Tab", 9)
    assert page.evaluate("document.activeElement.className") == "skip", "the keyboard comes to the results first"
    page.press("Enter", 13)
    assert page.evaluate("location.hash") == "#main"
    page.size(400, 800)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400, "wide tables scroll by themselves on a telephone"
    page.call("Page.printToPDF")


@pytest.fixture(scope="module")
def mlflow(finished_campaign, mlflow_server) -> str:
    """Address of an MLflow server that shows the finished campaign."""
    server = mlflow_server()
    sync(finished_campaign[1], server.database, wilson())
    server.start()
    return server.address


@pytest.fixture
def runs(page, mlflow) -> str:
    """The page shows the campaign's chains in MLflow; returns the page's address."""
    experiment = MlflowClient(mlflow).get_experiment_by_name("digits 6-4 overlap").experiment_id
    wanted = urllib.parse.quote("tags.`stepchain.campaign.hardness` = 'yes'")
    page.size(1400, 900)
    page.open(f"{mlflow}/#/experiments/{experiment}/runs?workflowType=machine_learning&searchFilter={wanted}")
    page.wait_for("12 matching runs")
    assistant = "document.querySelector('[data-component-id=\"mlflow.assistant.chat_panel.close\"]')"
    if page.evaluate(f"!!{assistant}"):
        page.click(assistant)
    return page.evaluate("location.href")


def exactly(text: str) -> str:
    """The last element on the page that says just that."""
    return (
        f"[...document.querySelectorAll('body *')].filter(x => !x.children.length && x.innerText == {json.dumps(text)}).at(-1)"
    )


@IN_MLFLOW
def test_what_does_alpha_do(page, runs, mlflow, pictures) -> None:
    page.screenshot(pictures / "mlflow-runs.png")
    page.click("document.querySelector('.ag-header input[type=checkbox]')")
    page.click(exactly("Compare"))
    page.wait_for("Comparing 12 Runs", "method.alpha", "method.prior", "miou/all", "Run details")
    page.wait("document.querySelectorAll('.js-plotly-plot .axis-heading').length >= 3")
    axes = page.evaluate("[...document.querySelectorAll('.js-plotly-plot .axis-title')].map(title => title.textContent)")
    assert axes == ["method.alpha", "method.prior", "seed", "miou/all"], "parallel coordinates, without a further click"
    page.screenshot(pictures / "mlflow-alpha.png")
    shown = page.text()
    for run in MlflowClient(mlflow).search_runs(["1"], "tags.`stepchain.campaign.hardness` = 'yes'"):
        assert run.info.run_name in shown
        assert f"{run.data.metrics['final/miou/all']:.3f}"[:-1] in shown


@IN_MLFLOW
def test_which_prior_is_best(page, runs, pictures) -> None:
    page.open(f"{runs}&compareRunsMode=CHART")
    page.click(exactly("Group by"))
    page.click(exactly("method.prior"))
    page.wait_for("method.prior: bce", "method.prior: fixed")
    page.press("Escape", 27)
    page.click(exactly("final/miou"))
    page.wait_for("final/miou/all")
    page.evaluate(f"({exactly('final/miou')}).scrollIntoView()")
    page.wait("document.querySelectorAll('.js-plotly-plot').length >= 3")
    page.screenshot(pictures / "mlflow-prior.png")


@IN_MLFLOW
def test_where_did_it_forget(page, runs, pictures) -> None:
    page.open(f"{runs}&compareRunsMode=CHART")
    page.click(exactly("iou"))
    page.wait_for("iou/background", "iou/0")
    page.evaluate(f"({exactly('iou')}).scrollIntoView()")
    page.wait("document.querySelectorAll('.js-plotly-plot').length >= 3")
    page.screenshot(pictures / "mlflow-forgetting.png")


@IN_MLFLOW
def test_a_campaigns_run_shows_its_page(page, mlflow, pictures) -> None:
    client = MlflowClient(mlflow)
    experiment = client.get_experiment_by_name("campaigns").experiment_id
    (run,) = client.search_runs([experiment])
    page.open(f"{mlflow}/#/experiments/{experiment}/runs/{run.info.run_id}/artifacts/report.html?workflowType=machine_learning")
    page.wait("!!document.querySelector('iframe')")
    page.wait_for("report.html", "figures", "tables")
    page.screenshot(pictures / "mlflow-campaign.png")
