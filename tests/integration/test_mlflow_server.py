"""An MLflow server that many write to at once, or that dies while they do, has everything once in the end."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator import tracking
from orchestrator.mirror import Mirror
from orchestrator.runs import Run, curve_points
from orchestrator.tracking import Tracker

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not os.environ.get("STEPCHAIN_SOAK"), reason="set STEPCHAIN_SOAK=1 for minutes of many writers"),
]
WRITERS = 16
RUNS = int(os.environ.get("STEPCHAIN_TRACKED_RUNS", "960"))  # in all
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
        points=curve_points({"iteration": n, "time": 1.7e9 + n, "loss": number + 1 / n} for n in range(1, ROWS + 1)),
        status="FINISHED",
        ended=1_700_000_100_000,
    )


def check(uri: str, count: int) -> None:
    """All runs are there, once, whole and finished. `uri`: the server's database, which answers faster than the server."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("made up")
    assert experiment
    found, token = [], None
    while token or not found:
        page = client.search_runs([experiment.experiment_id], max_results=1000, page_token=token)
        found, token = [*found, *page], page.token
    assert sorted(run.data.tags["stepchain.key"] for run in found) == [f"{number:016x}" for number in range(count)]
    for run in found:
        number = int(run.data.params["seed"])
        history = client.get_metric_history(run.info.run_id, "loss")
        assert [(m.step, m.value) for m in history] == [(n, number + 1 / n) for n in range(1, ROWS + 1)]
        assert run.info.status == "FINISHED"


def test_many_writers_lose_and_double_nothing(mlflow_server, tmp_path: Path) -> None:
    server = mlflow_server()
    Mirror(server.database)
    server.start()

    def write(writer: int) -> int:
        with Tracker(server.address, tmp_path / f"spool-{writer}", patience=600) as tracker:
            for number in range(writer, RUNS, WRITERS):
                tracker.tell([made_up(number)])
        return tracker.failures

    begun = time.monotonic()
    with ThreadPoolExecutor(WRITERS) as writers:
        failures = sum(writers.map(write, range(WRITERS)))
    print(f"{RUNS} runs by {WRITERS} writers in {time.monotonic() - begun:.0f} s, {failures} calls failed and were made again")
    for left in {path.parent for path in tmp_path.glob("spool-*/*")}:  # a call timed out while its writer was leaving
        Tracker(server.address, left, patience=300).close()
    assert not list(tmp_path.glob("spool-*/*"))
    check(server.database, RUNS)


def test_a_server_killed_in_mid_writing_has_everything_afterwards(
    mlflow_server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "LONGEST_PAUSE", 2.0)
    server, slowest, count = mlflow_server(), 0.0, 12
    Mirror(server.database)
    server.start()
    with Tracker(server.address, tmp_path / "spool", patience=300) as tracker:
        for number in range(count):
            whole = made_up(number)
            for point in whole.points:
                begun = time.monotonic()
                tracker.tell([whole.model_copy(update={"points": (point,)})])
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
    assert slowest < 1, "training waits for nobody"
    check(server.database, count)
