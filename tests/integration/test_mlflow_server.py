"""An MLflow server has everything exactly once in the end.

That holds when many processes write to it at once, and when it dies meanwhile.

With STEPCHAIN_SOAK=1 at full size: 1,000 runs, a minute without a server in mid-training.
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

from orchestrator.datasets.catalog import publish
from orchestrator.records.repository import Repository
from orchestrator.records.results import load_chains
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from orchestrator.store.retries import Retries
from orchestrator.tracking.mlflow_client import RunClient
from orchestrator.tracking.runs import Run, curve_points
from orchestrator.tracking.tracker import Tracker, spool_folder
from tests.support.datasets import build_dataset
from tests.support.mlflow_runs import all_runs
from training.data.digits import Digits
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
    """A step's run with its training curve."""
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
    found, token = [], None
    while token or not found:
        page = client.search_runs([experiment.experiment_id], max_results=1000, page_token=token)
        found, token = [*found, *page], page.token
    assert sorted(run.data.tags["stepchain.key"] for run in found) == [
        f"{number:016x}" for number in range(count)
    ]
    for run in found:
        number = int(run.data.params["seed"])
        history = client.get_metric_history(run.info.run_id, "loss")
        assert [(m.step, m.value) for m in history] == [
            (n, number + 1 / n) for n in range(1, ROWS + 1)
        ]
        assert run.info.status == "FINISHED"


def test_many_writers_lose_and_double_nothing(mlflow_server, tmp_path: Path) -> None:
    server = mlflow_server()
    RunClient(server.database)
    server.start()

    def write(writer: int) -> int:
        with Tracker(
            server.address, tmp_path / f"spool-{writer}", Retries(tracking_close_seconds=600)
        ) as tracker:
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
    for left in {
        path.parent for path in tmp_path.glob("spool-*/*")
    }:  # a call timed out while its writer was leaving
        Tracker(server.address, left, Retries(tracking_close_seconds=300)).close()
    assert not list(tmp_path.glob("spool-*/*"))
    check(server.database, RUNS)


def test_a_server_killed_in_mid_writing_has_everything_afterwards(
    mlflow_server, tmp_path: Path
) -> None:
    retries = Retries(tracking_close_seconds=300, tracking_pause_seconds=2)
    server, slowest, count = mlflow_server(), 0.0, 12
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
                server.kill()  # while it is being written to
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
    server, store = mlflow_server(), new_store(tmp_path / "store")
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
    Tracker(
        server.address, spool_folder(store), Retries(tracking_close_seconds=300)
    ).close()  # what a job ends without having said, the next says
    assert not list(spool_folder(store).glob("*"))

    (chain,) = load_chains(Repository(store), [Repository(store).chain_by_name("digits_wilson")])
    client = MlflowClient(server.database)
    shown = {run.data.tags["stepchain.key"]: run for run in all_runs(server.database)}
    assert len(shown) == len(all_runs(server.database)) == 1 + len(chain.steps), "each once"
    for step in chain.steps:
        history = client.get_metric_history(shown[step.record.key].info.run_id, "loss")
        assert sorted((m.step, m.value) for m in history) == [
            (row["iteration"], row["loss"]) for row in step.curves
        ]
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
        (undisturbed,) = load_chains(
            Repository(quiet), [Repository(quiet).chain_by_name("digits_wilson")]
        )
        took = [each.steps[-1].record.seconds["train"] for each in (chain, undisturbed)]
        print(
            f"step 1 took {took[0]:.1f} s with MLflow down for {DOWN} s, "
            f"{took[1]:.1f} s with MLflow up"
        )


@contextmanager
def job(store: Store, scratch: Path, uri: str) -> Iterator[subprocess.Popen]:
    """A job that tells the MLflow there; killed in the end, should it still run."""
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
    """Whether step 1's training shows in MLflow."""
    runs = all_runs(database)
    return any(
        run.data.tags.get("stepchain.index") == "1" and "loss" in run.data.metrics for run in runs
    )


def new_store(folder: Path) -> Store:
    store = open_store(str(folder))
    publish(
        store,
        "digits",
        folder / "built",
        build_dataset(Digits(seed=2, train=120, val=12), folder / "built")[0],
    )
    return store
