"""Pages in a real browser: reports that need nothing but themselves, and MLflow's own views of a finished campaign.

With STEPCHAIN_SCREENSHOTS=docs/images the pictures of the guides are made anew.
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
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
def mlflow(finished_campaign, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an MLflow server that shows the finished campaign."""
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder}/mlflow.db"
    sync(finished_campaign[1], uri, wilson())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [Path(sys.executable).with_name("mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    silent = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    log = (folder / "server.log").open("w")
    process = subprocess.Popen(
        [*command, "--backend-store-uri", uri],
        env=os.environ | silent,
        cwd=folder,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while not _answers(f"{address}/health"):
            assert process.poll() is None, (folder / "server.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.5)
        yield address
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        process.wait(60)
        log.close()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def test_mlflow_compares_the_runs_of_a_campaign(page, mlflow, pictures) -> None:
    client = MlflowClient(mlflow)
    experiment = client.get_experiment_by_name("digits 6-4 overlap")
    wanted = "tags.`stepchain.campaign.hardness` = 'yes' AND params.seed = '1'"
    chains = client.search_runs([experiment.experiment_id], wanted, order_by=["attributes.run_name ASC"])
    assert len(chains) == 6
    ids, experiments = json.dumps([run.info.run_id for run in chains]), json.dumps([experiment.experiment_id])
    page.size(1500, 1000)
    page.open(f"{mlflow}/#/compare-runs?runs={ids}&experiments={experiments}")
    page.wait_for("method.alpha", "method.prior", "final/miou/all")
    page.screenshot(pictures / "mlflow-compare.png")
