"""Pages in a real browser: our reports, and MLflow's views of a finished campaign.

Reports need no other file. The numbers that MLflow draws are read from its charts and are exact.
STEPCHAIN_SCREENSHOTS=docs/images makes the pictures of the guides again.
"""

import json
import os
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from orchestrator.planning.campaign_record import campaign_tree
from orchestrator.records.repository import Repository
from orchestrator.records.results import load_chains
from orchestrator.report.campaign_page import build_campaign_report, write_campaign_report
from orchestrator.report.campaign_results import load_campaign_results
from orchestrator.report.chain_page import build_report, write_report
from orchestrator.tracking.rebuild import rebuild
from training.metrics import wilson

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
# Sections of charts in MLflow.
LAST = "After the last step"
STEPS = "Over incremental steps"
CLASSES = "Classes over incremental steps"
CAMPAIGN = "tags.`stepchain.campaign.hardness` = 'yes'"
SLOW = pytest.mark.skipif(
    not os.environ.get("STEPCHAIN_SOAK"),
    reason="set STEPCHAIN_SOAK=1 to drive more of MLflow's pages",
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(os.environ.get("STEPCHAIN_SCREENSHOTS") or tmp_path_factory.mktemp("pictures"))


@pytest.mark.parametrize("kind", ["chain", "campaign"])
def test_a_report_opens_alone(page, finished_campaign, tmp_path, pictures, kind) -> None:
    campaign, store = finished_campaign
    repository = Repository(store)
    if kind == "campaign":
        tree = campaign_tree(campaign, store)
        result = load_campaign_results(campaign, tree, repository, wilson())
        path = write_campaign_report(build_campaign_report(result), tmp_path)
    else:
        records = [repository.chain_by_name(chain.name) for chain in campaign.chains[:2]]
        chains = load_chains(repository, records)
        path = write_report(build_report(chains, wilson()), tmp_path)
    for dark in (False, True):
        page.size(1200, 900, dark)
        page.open(path.as_uri())
        if dark == (kind == "chain"):
            page.screenshot(pictures / f"report-{kind}.png")
        assert page.errors == []
        own = ("data:", path.as_uri())
        assert [url for url in page.asked if not url.startswith(own)] == []
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    page.press("Tab", 9)
    # The keyboard comes to the results first.
    assert page.evaluate("document.activeElement.className") == "skip"
    page.press("Enter", 13)
    assert page.evaluate("location.hash") == "#main"
    page.size(400, 800)
    # On a telephone, wide tables scroll by themselves.
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    page.call("Page.printToPDF")


@pytest.fixture(scope="module")
def mlflow(finished_campaign, mlflow_server) -> str:
    """Return the address of an MLflow server that shows the finished campaign."""
    server = mlflow_server()
    rebuild(finished_campaign[1], server.database, wilson())
    server.start()
    return server.address


@pytest.fixture
def runs(page, mlflow):
    """Open the runs of the scenario in MLflow, as docs/mlflow.md says."""
    page.size(1400, 900)
    # MLflow's pages remember filters.
    page.call("Storage.clearDataForOrigin", origin=mlflow, storageTypes="all")
    page.open(mlflow)
    page.click(exactly("Model training"))
    page.click(exactly("digits 6-4 overlap"))
    page.wait_for("26 matching runs")
    close = "mlflow.assistant.chat_panel.close"
    assistant = f"document.querySelector('[data-component-id=\"{close}\"]')"
    if page.evaluate(f"!!{assistant}"):
        page.click(assistant)
    return page


def exactly(text: str) -> str:
    """Return an expression for the innermost element whose text is exactly this."""
    elements = "[...document.querySelectorAll('body *')]"
    return f"{elements}.filter(x => x.innerText?.trim() == {json.dumps(text)}).at(-1)"


def choose_view(page, name: str) -> None:
    """Choose one of the campaign's saved views."""
    page.click(exactly("Views"))
    page.click(exactly(name))
    page.wait_for("12 matching runs")


def open_view(page, name: str) -> None:
    """Open the charts of a saved view."""
    choose_view(page, name)
    page.click("document.querySelector('input[value=CHART]')?.closest('label')")
    page.wait_for(LAST, STEPS, CLASSES)


def chart(page, section: str, metric: str) -> list[dict[str, Any]]:
    """Return what the chart of a metric draws: bars, or a line for each run or group.

    MLflow draws a chart once it is in sight.
    """
    show(page, section)
    cards = "[...document.querySelectorAll('[data-testid=\"experiment-view-compare-runs-card\"]')]"
    card = f"{cards}.find(x => x.innerText.trim().split('\\n')[0] == {json.dumps(metric)})"
    page.wait(f"!!({card})")
    page.evaluate(f"({card}).scrollIntoView({{block: 'center'}})")
    plot = f"({card})?.querySelector('.js-plotly-plot')"
    traces = f"[...({plot}?.data ?? [])].filter(each => each.x?.length)"
    page.wait(f"{traces}.length > 0")
    values = "({type: each.type, metric: each.metricKey, x: [...each.x], y: [...each.y]})"
    return json.loads(page.evaluate(f"JSON.stringify({traces}.map(each => {values}))"))


def lines(page, section: str, metric: str) -> list[list[float]]:
    """Return the different curves in the chart of a metric, with a value for each step."""
    # The bands around the curves have no metric.
    drawn = [each for each in chart(page, section, metric) if each.get("metric") == metric]
    different = {tuple(each["y"]) for each in drawn}
    return sorted(list(curve) for curve in different)


def show(page, section: str) -> None:
    """Scroll to a section, because charts out of sight are not drawn."""
    buttons = "[...document.querySelectorAll('[role=button]')]"
    heading = f"{buttons}.find(x => x.innerText.startsWith({json.dumps(section)}))"
    page.wait(f"!!({heading})")
    page.evaluate(f"({heading}).scrollIntoView()")


@pytest.fixture
def found(mlflow) -> list[Run]:
    """Return the runs of the campaign's chains from MLflow's own client."""
    return list(MlflowClient(mlflow).search_runs(["1"], CAMPAIGN))


def test_what_does_alpha_do(runs, found, pictures) -> None:
    page = runs
    choose_view(page, "hardness")
    # Wait until the table is complete.
    page.wait_for("You're viewing a shared view", "final/miou/all")
    page.click("document.querySelector('[aria-label=\"Select all runs\"]')")
    page.click(exactly("Compare"))
    page.wait_for("Comparing 12 Runs", "method.alpha", "method.prior", "miou/all", "Run details")
    page.wait("document.querySelectorAll('.js-plotly-plot .axis-title').length >= 4")
    page.screenshot(pictures / "mlflow-alpha.png")
    drawn = "document.querySelector('.js-plotly-plot').data[0].dimensions"
    labelled = f"{drawn}.map(axis => [axis.label, [...axis.values]])"
    axes = json.loads(page.evaluate(f"JSON.stringify({labelled})"))
    # All axes are shown without a further click.
    assert [label for label, _ in axes] == ["method.alpha", "method.prior", "seed", "miou/all"]
    curves = dict(axes)
    alphas = sorted(float(run.data.params["method.alpha"]) for run in found)
    assert sorted(map(float, curves["method.alpha"])) == alphas
    scores = sorted(run.data.metrics["miou/all"] for run in found)
    assert sorted(curves["miou/all"]) == pytest.approx(scores)
    shown = page.text()
    for run in found:
        assert run.info.run_name in shown
        assert f"{run.data.metrics['final/miou/all']:.3f}"[:-1] in shown


def test_which_prior_is_best(runs, found, pictures) -> None:
    open_view(runs, "hardness by method.prior")
    (bars,) = chart(runs, LAST, "final/miou/all")
    means = {}
    for prior in ("bce", "fixed"):
        chains = [run for run in found if run.data.params["method.prior"] == prior]
        mean = fmean(run.data.metrics["final/miou/all"] for run in chains)
        means[f"param.method.prior.{prior}"] = mean
    assert dict(zip(bars["y"], bars["x"], strict=True)) == pytest.approx(means)
    assert len(lines(runs, STEPS, "miou/all")) == 2
    chart(runs, LAST, "final/miou/all")
    runs.screenshot(pictures / "mlflow-prior.png")


def test_where_did_it_forget(runs, mlflow, found, pictures) -> None:
    client = MlflowClient(mlflow)
    open_view(runs, "hardness")
    runs.wait_for("Parallel Coordinates")
    for section, metric in ((CLASSES, "iou/3"), (STEPS, "miou/base")):
        wanted = set()
        for run in found:
            history = client.get_metric_history(run.info.run_id, metric)
            history = sorted(history, key=lambda point: point.step)
            wanted.add(tuple(point.value for point in history))
        assert lines(runs, section, metric) == [pytest.approx(line) for line in sorted(wanted)]
    runs.screenshot(pictures / "mlflow-forgetting.png")


@SLOW
def test_a_campaigns_run_shows_its_page(page, mlflow) -> None:
    client = MlflowClient(mlflow)
    experiment = client.get_experiment_by_name("campaigns")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    folder = f"experiments/{experiment.experiment_id}/runs/{run.info.run_id}/artifacts"
    page.open(f"{mlflow}/#/{folder}/report.html?workflowType=machine_learning")
    page.wait("!!document.querySelector('iframe')")
    page.wait_for("report.html", "figures", "tables")
    # MLflow shows the page in a sandbox that the test cannot read, so its bytes are fetched.
    source = "document.querySelector('iframe').src"
    keep = "text => { window.shown = text }"
    page.evaluate(f"fetch({source}).then(it => it.text()).then({keep})")
    page.wait("(window.shown ?? '').includes('The answer')")
