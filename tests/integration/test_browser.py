"""Pages in a real browser: reports that need nothing but themselves, and MLflow's own views of a finished campaign.

What MLflow draws is read from its charts, exactly. STEPCHAIN_SCREENSHOTS=docs/images makes the pictures of the guides anew.
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
LAST, STEPS, CLASSES = (
    "After the last step",
    "Over incremental steps",
    "Classes over incremental steps",
)  # sections of charts
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
    if kind == "campaign":
        result = load_campaign_results(
            campaign, campaign_tree(campaign, store), Repository(store), wilson()
        )
        path = write_campaign_report(build_campaign_report(result), tmp_path)
    else:
        chains = load_chains(
            Repository(store),
            [Repository(store).chain_by_name(chain.name) for chain in campaign.chains[:2]],
        )
        path = write_report(build_report(chains, wilson()), tmp_path)
    for dark in (False, True):
        page.size(1200, 900, dark)
        page.open(path.as_uri())
        if dark == (kind == "chain"):
            page.screenshot(pictures / f"report-{kind}.png")
        assert page.errors == []
        assert [url for url in page.asked if not url.startswith(("data:", path.as_uri()))] == []
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    page.press("Tab", 9)
    assert page.evaluate("document.activeElement.className") == "skip", (
        "the keyboard comes to the results first"
    )
    page.press("Enter", 13)
    assert page.evaluate("location.hash") == "#main"
    page.size(400, 800)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400, (
        "wide tables scroll by themselves on a telephone"
    )
    page.call("Page.printToPDF")


@pytest.fixture(scope="module")
def mlflow(finished_campaign, mlflow_server) -> str:
    """Address of an MLflow server that shows the finished campaign."""
    server = mlflow_server()
    rebuild(finished_campaign[1], server.database, wilson())
    server.start()
    return server.address


@pytest.fixture
def runs(page, mlflow):
    """The runs of the scenario in MLflow's pages, reached as docs/mlflow.md says."""
    page.size(1400, 900)
    page.call(
        "Storage.clearDataForOrigin", origin=mlflow, storageTypes="all"
    )  # it remembers filters
    page.open(mlflow)
    page.click(exactly("Model training"))
    page.click(exactly("digits 6-4 overlap"))
    page.wait_for("26 matching runs")
    assistant = (
        "document.querySelector('[data-component-id=\"mlflow.assistant.chat_panel.close\"]')"
    )
    if page.evaluate(f"!!{assistant}"):
        page.click(assistant)
    return page


def exactly(text: str) -> str:
    """The innermost element on the page that says just that."""
    return f"[...document.querySelectorAll('body *')].filter(x => x.innerText?.trim() == {json.dumps(text)}).at(-1)"


def choose_view(page, name: str) -> None:
    page.click(exactly("Views"))
    page.click(exactly(name))
    page.wait_for("12 matching runs")


def open_view(page, name: str) -> None:
    """The three clicks."""
    choose_view(page, name)
    page.click("document.querySelector('input[value=CHART]')?.closest('label')")
    page.wait_for(LAST, STEPS, CLASSES)


def chart(page, section: str, metric: str) -> list[dict[str, Any]]:
    """What the chart of that metric draws, once it is in sight and drawn: bars, or lines of one run or group each."""
    show(page, section)
    cards = "[...document.querySelectorAll('[data-testid=\"experiment-view-compare-runs-card\"]')]"
    card = f"{cards}.find(x => x.innerText.trim().split('\\n')[0] == {json.dumps(metric)})"
    page.wait(f"!!({card})")
    page.evaluate(f"({card}).scrollIntoView({{block: 'center'}})")
    traces = f"[...(({card})?.querySelector('.js-plotly-plot')?.data ?? [])].filter(each => each.x?.length)"
    page.wait(f"{traces}.length > 0")
    values = "({type: each.type, metric: each.metricKey, x: [...each.x], y: [...each.y]})"
    return json.loads(page.evaluate(f"JSON.stringify({traces}.map(each => {values}))"))


def lines(page, section: str, metric: str) -> list[list[float]]:
    """The different curves in the chart of that metric: a value for each incremental step, from step 0."""
    drawn = [
        each["y"] for each in chart(page, section, metric) if each.get("metric") == metric
    ]  # no bands around them
    return sorted(list(each) for each in {tuple(line) for line in drawn})


def show(page, section: str) -> None:
    """Scroll there; charts out of sight are not drawn."""
    heading = f"[...document.querySelectorAll('[role=button]')].find(x => x.innerText.startsWith({json.dumps(section)}))"
    page.wait(f"!!({heading})")
    page.evaluate(f"({heading}).scrollIntoView()")


@pytest.fixture
def found(mlflow) -> list[Run]:
    """The campaign's chains as MLflow's own client has them."""
    return list(MlflowClient(mlflow).search_runs(["1"], CAMPAIGN))


def test_what_does_alpha_do(runs, found, pictures) -> None:
    page = runs
    choose_view(page, "hardness")
    page.wait_for("You're viewing a shared view", "final/miou/all")  # the table is as it will be
    page.click("document.querySelector('[aria-label=\"Select all runs\"]')")
    page.click(exactly("Compare"))
    page.wait_for("Comparing 12 Runs", "method.alpha", "method.prior", "miou/all", "Run details")
    page.wait("document.querySelectorAll('.js-plotly-plot .axis-title').length >= 4")
    page.screenshot(pictures / "mlflow-alpha.png")
    drawn = "document.querySelector('.js-plotly-plot').data[0].dimensions"
    axes = json.loads(
        page.evaluate(f"JSON.stringify({drawn}.map(axis => [axis.label, [...axis.values]]))")
    )
    assert [label for label, _ in axes] == ["method.alpha", "method.prior", "seed", "miou/all"], (
        "without a further click"
    )
    curves = dict(axes)
    assert sorted(map(float, curves["method.alpha"])) == sorted(
        float(run.data.params["method.alpha"]) for run in found
    )
    assert sorted(curves["miou/all"]) == pytest.approx(
        sorted(run.data.metrics["miou/all"] for run in found)
    )
    shown = page.text()
    for run in found:
        assert run.info.run_name in shown
        assert f"{run.data.metrics['final/miou/all']:.3f}"[:-1] in shown


def test_which_prior_is_best(runs, found, pictures) -> None:
    open_view(runs, "hardness by method.prior")
    (bars,) = chart(runs, LAST, "final/miou/all")
    means = {
        f"param.method.prior.{prior}": fmean(
            run.data.metrics["final/miou/all"]
            for run in found
            if run.data.params["method.prior"] == prior
        )
        for prior in ("bce", "fixed")
    }
    assert dict(zip(bars["y"], bars["x"], strict=True)) == pytest.approx(means)
    assert len(lines(runs, STEPS, "miou/all")) == 2
    chart(runs, LAST, "final/miou/all")
    runs.screenshot(pictures / "mlflow-prior.png")


def test_where_did_it_forget(runs, mlflow, found, pictures) -> None:
    client = MlflowClient(mlflow)
    open_view(runs, "hardness")
    runs.wait_for("Parallel Coordinates")
    for section, metric in ((CLASSES, "iou/3"), (STEPS, "miou/base")):
        histories = [client.get_metric_history(run.info.run_id, metric) for run in found]
        wanted = {
            tuple(point.value for point in sorted(history, key=lambda point: point.step))
            for history in histories
        }
        assert lines(runs, section, metric) == [pytest.approx(line) for line in sorted(wanted)]
    runs.screenshot(pictures / "mlflow-forgetting.png")


@SLOW
def test_a_campaigns_run_shows_its_page(page, mlflow) -> None:
    client = MlflowClient(mlflow)
    experiment = client.get_experiment_by_name("campaigns").experiment_id
    (run,) = client.search_runs([experiment])
    page.open(
        f"{mlflow}/#/experiments/{experiment}/runs/{run.info.run_id}/artifacts/report.html?workflowType=machine_learning"
    )
    page.wait("!!document.querySelector('iframe')")
    page.wait_for("report.html", "figures", "tables")
    # MLflow shows it in a sandbox, into which nobody can look from outside; the bytes are the page's.
    page.evaluate(
        "fetch(document.querySelector('iframe').src).then(it => it.text()).then(text => { window.shown = text })"
    )
    page.wait("(window.shown ?? '').includes('The answer')")
