"""A tracker keeps MLflow up to date while something happens, and never delays a training."""

import logging
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun

from orchestrator.planning.chain import Chain
from orchestrator.planning.resolver import PlannedStep
from orchestrator.records.results import ChainResult
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from orchestrator.store.retries import Retries
from orchestrator.tracking.mlflow_client import RunClient
from orchestrator.tracking.rebuild import rebuild
from orchestrator.tracking.runs import Run
from orchestrator.tracking.tracker import Tracker, spool_folder
from tests.support.mlflow_runs import all_runs, everything, history, runs_of_kind
from training.metrics import wilson


def planned(result: ChainResult) -> list[PlannedStep]:
    records = [step.record for step in result.steps]
    return [
        PlannedStep(r.index, r.step, r.key, r.parent, r.class_names, np.arange(3)) for r in records
    ]


def start_chain(tracker: Tracker, result: ChainResult) -> Run:
    return tracker.chain_started(Chain.model_validate(result.record.chain), planned(result))


def report_training(tracker: Tracker, result: ChainResult, until: int = 99) -> None:
    """Report what a driver reports while it trains the chain.

    Args:
        tracker: The tracker.
        result: The chain.
        until: How many iterations of each step are reported live.
    """
    chain = start_chain(tracker, result)
    scores = list(result.scores(wilson()))
    names = result.steps[0].evaluation.class_names
    for step, done in zip(result.steps, planned(result), strict=True):
        tracker.step_started(done, step.record.data, chain)
        for row in step.curves[:until]:
            tracker.curves(done.key, [row])
        tracker.step_finished(step.record, scores[done.index], names, step.curves, chain)
        so_far = done.index + 1
        records = [step.record for step in result.steps[:so_far]]
        tracker.chain_progressed(chain, records, scores[:so_far], names)
    tracker.chain_finished(result, wilson())


def wait_for_curves(uri: str) -> MlflowRun:
    """Return the first step's run as soon as it has points of its loss."""
    deadline = time.monotonic() + 30
    while not (found := runs_of_kind(uri, "step")) or "loss" not in found[0].data.metrics:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found[0]


def start_step(tracker: Tracker, result: ChainResult, uri: str) -> tuple[Run, MlflowRun]:
    """Report the start of the first step with five rows; return its chain, and its MLflow run."""
    chain = start_chain(tracker, result)
    record = result.steps[0].record
    tracker.step_started(planned(result)[0], record.data, chain)
    tracker.curves(record.key, result.steps[0].curves[:5])
    return chain, wait_for_curves(uri)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_chain_reported_while_it_trains_equals_one_rebuilt_from_records(
    uri: str,
    other_uri: str,
    result: ChainResult,
    store: Store,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
):
    with Tracker(uri, tmp_path / "spool") as tracker:
        report_training(tracker, result)
    assert tracker.failures == 0
    assert capfd.readouterr() == ("", ""), "output would break the progress bar"
    assert not list((tmp_path / "spool").glob("*"))

    assert rebuild(store, other_uri, wilson()) == (3, 0, ())
    assert everything(uri) == everything(other_uri)
    assert rebuild(store, other_uri, wilson()) == (3, 0, ())
    assert everything(uri) == everything(other_uri), "a second rebuild must change nothing"


def test_curves_are_there_while_the_step_still_trains(
    uri: str, result: ChainResult, tmp_path: Path
):
    with Tracker(uri, tmp_path / "spool") as tracker:
        chain = start_chain(tracker, result)
        tracker.step_started(planned(result)[0], result.steps[0].record.data, chain)
        for row in result.steps[0].curves[:7]:
            tracker.curves(result.steps[0].record.key, [row])
        assert wait_for_curves(uri).info.status == "RUNNING"
    statuses = {run.info.status for run in all_runs(uri)}
    assert statuses == {"KILLED"}, "a driver that leaves ends the runs that it began"


def test_a_chain_that_a_rule_stops_is_killed_and_one_that_fails_has_failed(
    uri: str, result: ChainResult, tmp_path: Path
):
    for end, status in (("chain_stopped", "KILLED"), ("chain_failed", "FAILED")):
        with Tracker(uri, tmp_path / "spool") as tracker:
            getattr(tracker, end)(start_chain(tracker, result))
        (chain,) = runs_of_kind(uri, "chain")
        assert chain.info.status == status


def test_a_resumed_step_finds_its_run_and_measures_no_iteration_twice(
    uri: str, result: ChainResult, tmp_path: Path
):
    step = result.steps[0]
    later = [row | {"time": row["time"] + 900, "images_per_second": 1.0} for row in step.curves]
    for rows in (step.curves[:20], later[10:]):
        with Tracker(uri, tmp_path / "spool") as tracker:
            chain = start_chain(tracker, result)
            tracker.step_started(planned(result)[0], step.record.data, chain)
            tracker.curves(step.record.key, rows)
            tracker.step_failed(step.record.key)
    (run,) = runs_of_kind(uri, "step")
    assert run.info.status == "FAILED"
    assert history(uri, run, "loss") == [(row["iteration"], row["loss"]) for row in step.curves]
    speeds = [value for _, value in history(uri, run, "images_per_second")]
    assert speeds == [312.0] * 20 + [1.0] * 10


def test_a_dead_mlflow_delays_nothing_and_receives_everything_later(
    uri: str,
    other_uri: str,
    result: ChainResult,
    store: Store,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
):
    started = time.perf_counter()
    dead = f"http://ada:secret@127.0.0.1:{closed_port()}"
    tracker = Tracker(dead, tmp_path / "spool", Retries(tracking_close_seconds=20))
    report_training(tracker, result)
    assert time.perf_counter() - started < 1, "sixty calls that do not wait"
    with caplog.at_level(logging.WARNING):
        tracker.close()
    assert tracker.failures
    assert sum("training goes on" in message for message in caplog.messages) == 1
    assert "secret" not in caplog.text
    assert list((tmp_path / "spool").glob("*.jsonl"))

    # The next job reports nothing of its own.
    Tracker(uri, tmp_path / "spool").close()
    assert not list((tmp_path / "spool").glob("*"))
    rebuild(store, other_uri, wilson())
    assert everything(uri) == everything(other_uri)


def test_an_emptied_mlflow_receives_again_all_that_this_process_reported(
    uri: str, result: ChainResult, tmp_path: Path
):
    curves = result.steps[0].curves
    with Tracker(uri, tmp_path / "spool", Retries(tracking_gather_seconds=0.01)) as tracker:
        start_step(tracker, result, uri)
        client = MlflowClient(uri)
        for run in all_runs(uri):
            client.delete_run(run.info.run_id)
            client._tracking_client.store._hard_delete_run(run.info.run_id)
        tracker.curves(result.steps[0].record.key, curves[5:10])
    (run,) = runs_of_kind(uri, "step")
    assert not list((tmp_path / "spool").glob("*"))
    assert history(uri, run, "loss") == [(row["iteration"], row["loss"]) for row in curves[:10]]
    assert run.data.params["seed"] == "0"


def test_of_a_run_that_was_deleted_all_is_sent_again_and_of_others_nothing(
    uri: str, result: ChainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    curves = result.steps[0].curves
    with Tracker(uri, tmp_path / "spool", Retries(tracking_gather_seconds=0.01)) as tracker:
        chain, deleted = start_step(tracker, result, uri)
        put, again = RunClient.put, []
        monkeypatch.setattr(
            RunClient, "put", lambda client, run: (again.append(run.key), put(client, run))
        )
        MlflowClient(uri).delete_run(deleted.info.run_id)
        tracker.curves(result.steps[0].record.key, curves[5:10])
    (run,) = runs_of_kind(uri, "step")
    assert run.info.run_id != deleted.info.run_id
    assert history(uri, run, "loss") == [(row["iteration"], row["loss"]) for row in curves[:10]]
    # The first did not reach the run; the chain's own end comes last.
    assert again == [result.steps[0].record.key, result.steps[0].record.key, chain.key]
    assert not list((tmp_path / "spool").glob("*"))


def test_a_tracker_without_a_disk_still_reports_to_mlflow(
    uri: str, result: ChainResult, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "spool").write_text("a file where the folder should be")
    with Tracker(uri, tmp_path / "spool") as tracker:
        report_training(tracker, result, until=2)
    assert len(all_runs(uri)) == 3
    assert sum("cannot write" in message for message in caplog.messages) == 1


def test_spools_of_stores_on_servers_outlive_the_job_and_are_separate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("STEPCHAIN_CACHE", str(tmp_path / "cache"))
    one, other = (spool_folder(open_store(f"s3://{name}/results")) for name in ("one", "other"))
    assert one != other
    assert one.parent == other.parent == tmp_path / "cache" / "tracking-spool"
    folder = spool_folder(open_store(str(tmp_path / "store")))
    assert folder == tmp_path / "store" / "tracking-spool"
