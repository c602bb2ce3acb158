"""An MLflow server has every run exactly once in the end.

This holds when many processes write at once, and when the server dies meanwhile. STEPCHAIN_SOAK=1
runs the tests at full size: 1,000 runs, and a minute without a server during training.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator.records.repository import Repository
from orchestrator.records.results import ChainResult, load_chains
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from orchestrator.store.retries import Retries
from orchestrator.tracking.mlflow_client import RunClient
from orchestrator.tracking.runs import Run, curve_points
from orchestrator.tracking.tracker import Tracker, spool_folder
from tests.support.datasets import publish_digits
from tests.support.mlflow_runs import all_runs
from training.metrics import wilson

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
SOAK = bool(os.environ.get("STEPCHAIN_SOAK"))
WRITERS = 16
RUNS = 1000 if SOAK else 48  # in all
DOWN = 60 if SOAK else 5  # seconds without MLflow in mid-training
JOB = (
    "digits_wilson --groups 0,1,2 3,4 --base.optimization.epochs 3 "
    "--base.optimization.batch 8 --optimization.batch 8 "
    f"--optimization.epochs {150 if SOAK else 15} --method.warmup_epochs 1 --cpus-per-worker 1"
)
ROWS = 40


def made_up(number: int) -> Run:
    """Return a made-up run of a step with its training curve."""
    return Run(
        key=f"{number:016x}",
        kind="step",
        experiment="made up",
        name=f"step {number}",
        began=1_700_000_000_000,
        params={"seed": str(number), "method.alpha": "0.5"},
        tags={"stepchain.index": "1"},
        points=curve_points(
            {"iteration": n, "time": 1.7e9 + n, "loss": number + 1 / n} for n in range(1, ROWS + 1)
        ),
        status="FINISHED",
        ended=1_700_000_100_000,
    )


def check(uri: str, count: int) -> None:
    """Check that all runs are there, once, complete and finished.

    Args:
        uri: The server's database, which answers faster than the server.
        count: How many runs there must be.
    """
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("made up")
    assert experiment
    found = []
    token = None
    while token or not found:
        page = client.search_runs([experiment.experiment_id], max_results=1000, page_token=token)
        found += page
        token = page.token
    keys = sorted(run.data.tags["stepchain.key"] for run in found)
    assert keys == [f"{number:016x}" for number in range(count)]
    for run in found:
        number = int(run.data.params["seed"])
        history = client.get_metric_history(run.info.run_id, "loss")
        expected = [(n, number + 1 / n) for n in range(1, ROWS + 1)]
        assert [(point.step, point.value) for point in history] == expected
        assert run.info.status == "FINISHED"


def test_many_writers_lose_and_double_nothing(mlflow_server, tmp_path: Path) -> None:
    server = mlflow_server()
    RunClient(server.database)
    server.start()

    def write(writer: int) -> int:
        retries = Retries(tracking_close_seconds=600)
        with Tracker(server.address, tmp_path / f"spool-{writer}", retries) as tracker:
            for number in range(writer, RUNS, WRITERS):
                tracker.report([made_up(number)])
        return tracker.failures

    begun = time.monotonic()
    with ThreadPoolExecutor(WRITERS) as writers:
        failures = sum(writers.map(write, range(WRITERS)))
    print(
        f"{RUNS} runs by {WRITERS} writers in {time.monotonic() - begun:.0f} s, "
        f"{failures} calls failed and were repeated"
    )
    # A call may time out while its writer closes, and leaves a spool for the next tracker.
    for left in {path.parent for path in tmp_path.glob("spool-*/*")}:
        Tracker(server.address, left, Retries(tracking_close_seconds=300)).close()
    assert not list(tmp_path.glob("spool-*/*"))
    check(server.database, RUNS)


def test_a_server_killed_in_mid_writing_has_everything_afterwards(
    mlflow_server, tmp_path: Path
) -> None:
    retries = Retries(tracking_close_seconds=300, tracking_pause_seconds=2)
    server = mlflow_server()
    slowest = 0.0
    count = 12
    RunClient(server.database)
    server.start()
    with Tracker(server.address, tmp_path / "spool", retries) as tracker:
        for number in range(count):
            whole = made_up(number)
            for point in whole.points:
                begun = time.monotonic()
                tracker.report([whole.model_copy(update={"points": (point,)})])
                slowest = max(slowest, time.monotonic() - begun)
                time.sleep(0.005)
            if number == 3:
                while len(MlflowClient(server.database).search_experiments()) < 2:
                    time.sleep(0.05)
                # The tracker is writing to it at this moment.
                server.kill()
        assert not server.answers()
        time.sleep(5)
        server.start()
    assert tracker.failures, "it was down while there was something to say"
    assert slowest < 1, "training never waits"
    check(server.database, count)


@pytest.mark.ray
def test_a_server_killed_in_mid_training_has_everything_afterwards(
    mlflow_server, tmp_path: Path
) -> None:
    server = mlflow_server()
    store = new_store(tmp_path / "store")
    RunClient(server.database)
    server.start()
    with job(store, tmp_path, server.address) as running:
        while not measured(server.database):
            assert running.poll() is None, (tmp_path / "job.log").read_text()
            time.sleep(0.1)
        server.kill()
        died = time.time()
        time.sleep(DOWN)
        back = time.time()
        server.start()
        assert running.wait(timeout=900) == 0, (tmp_path / "job.log").read_text()
    # The next tracker delivers the events that a job could not deliver before it ended.
    Tracker(server.address, spool_folder(store), Retries(tracking_close_seconds=300)).close()
    assert not list(spool_folder(store).glob("*"))

    chain = load_digits_wilson(store)
    client = MlflowClient(server.database)
    shown = {run.data.tags["stepchain.key"]: run for run in all_runs(server.database)}
    assert len(shown) == len(all_runs(server.database)) == 1 + len(chain.steps), "each once"
    for step in chain.steps:
        history = client.get_metric_history(shown[step.record.key].info.run_id, "loss")
        points = sorted((point.step, point.value) for point in history)
        assert points == [(row["iteration"], row["loss"]) for row in step.curves]
    (whole,) = (run for run in shown.values() if run.data.tags["stepchain.kind"] == "chain")
    assert whole.data.metrics["final/miou/all"] == chain.scores(wilson())[-1].miou_all
    assert {run.info.status for run in shown.values()} == {"FINISHED"}
    if SOAK:
        times = [row["time"] for row in chain.steps[-1].curves]
        gaps = sorted(b - a for a, b in pairwise(times) if a < back and b > died)
        assert len(gaps) > 10, "it trained while MLflow was down"
        assert gaps[-1] < DOWN / 2, "and never waited"
        quiet = new_store(tmp_path / "quiet")
        with job(quiet, tmp_path, server.address) as running:
            assert running.wait(timeout=900) == 0
        undisturbed = load_digits_wilson(quiet)
        took = [each.steps[-1].record.seconds["train"] for each in (chain, undisturbed)]
        print(
            f"step 1 took {took[0]:.1f} s with MLflow down for {DOWN} s, "
            f"{took[1]:.1f} s with MLflow up"
        )


def load_digits_wilson(store: Store) -> ChainResult:
    """Return the results of the chain that the job trains."""
    repository = Repository(store)
    (chain,) = load_chains(repository, [repository.chain_by_name("digits_wilson")])
    return chain


@contextmanager
def job(store: Store, scratch: Path, uri: str) -> Iterator[subprocess.Popen]:
    """Run a job that reports to an MLflow server. Kill it at the end if it still runs."""
    command = [sys.executable, "-m", "jobs.train", *JOB.split(), "--store", store.uri]
    environment = os.environ | {
        "STEPCHAIN_CACHE": str(scratch / "cache"),
        "MLFLOW_TRACKING_URI": uri,
    }
    with (scratch / "job.log").open("w") as log:
        running = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield running
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)


def measured(database: str) -> bool:
    """Return whether MLflow shows a loss of step 1."""
    runs = [run for run in all_runs(database) if run.data.tags.get("stepchain.index") == "1"]
    return any("loss" in run.data.metrics for run in runs)


def new_store(folder: Path) -> Store:
    store = open_store(str(folder))
    publish_digits(store, folder / "built", seed=2, train=120, val=12)
    return store
