"""MLflow mirrors what is published, keeps up while it happens, and never holds anything up."""

import logging
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun

from orchestrator.planning.chain import Chain
from orchestrator.planning.resolver import PlannedStep
from orchestrator.records.repository import Repository
from orchestrator.records.results import ChainResult, load_chains
from orchestrator.records.schema import ChainRecord
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from orchestrator.store.retries import Retries
from orchestrator.tracking import rebuild as rebuilding
from orchestrator.tracking.mlflow_client import RunClient
from orchestrator.tracking.rebuild import RebuildSummary
from orchestrator.tracking.runs import build_finished_chain_run, curve_points, to_params
from orchestrator.tracking.spool import Spool, abandoned_messages
from orchestrator.tracking.tracker import Tracker, spool_folder
from training.metrics import Convention, wilson


def rebuild(store: Store, uri: str, convention: Convention) -> int:
    found = rebuilding.rebuild(store, uri, convention)
    assert found == RebuildSummary(found.runs, 0, ())
    return found.runs


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An sqlite file as MLflow sets it up; that takes seconds, so it is done once."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    RunClient(f"sqlite:///{path}")
    return path


@pytest.fixture
def uri(empty_database: Path, tmp_path: Path) -> str:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def result(store: Store, publish_chain: Callable[..., ChainRecord]) -> ChainResult:
    return load_chains(Repository(store), [publish_chain(store, "alpha 0.5")])[0]


def runs(uri: str) -> list[MlflowRun]:
    client = MlflowClient(uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments))


def of_kind(uri: str, kind: str) -> list[MlflowRun]:
    found = [run for run in runs(uri) if run.data.tags["stepchain.kind"] == kind]
    return sorted(found, key=lambda run: run.data.tags.get("stepchain.index", ""))


def history(uri: str, run: MlflowRun, name: str) -> list[tuple[int, float]]:
    return [
        (metric.step, metric.value)
        for metric in MlflowClient(uri).get_metric_history(run.info.run_id, name)
    ]


def everything(uri: str) -> list[tuple]:
    """What MLflow holds, without its own ids and with metrics in full."""
    held = []
    for run in sorted(runs(uri), key=lambda run: run.data.tags["stepchain.key"]):
        tags = {
            name: value for name, value in run.data.tags.items() if name != "mlflow.parentRunId"
        }
        metrics = {name: history(uri, run, name) for name in run.data.metrics}
        held.append((run.info.run_name, run.info.status, run.data.params, tags, metrics))
    return held


def planned(result: ChainResult) -> list[PlannedStep]:
    records = [step.record for step in result.steps]
    return [
        PlannedStep(r.index, r.step, r.key, r.parent, r.class_names, np.arange(3)) for r in records
    ]


def tell(tracker: Tracker, result: ChainResult, until: int = 99) -> None:
    """What a driver says while it trains the chain; `until`: how many iterations of a step are told live."""
    chain = tracker.chain_started(Chain.model_validate(result.record.chain), planned(result))
    scores, names = list(result.scores(wilson())), result.steps[0].evaluation.class_names
    for step, done in zip(result.steps, planned(result), strict=True):
        tracker.step_started(done, step.record.data, chain)
        for row in step.curves[:until]:
            tracker.curves(done.key, [row])
        tracker.step_finished(step.record, scores[done.index], names, step.curves, chain)
        so_far = done.index + 1
        records = [step.record for step in result.steps[:so_far]]
        tracker.chain_progressed(chain, records, scores[:so_far], names)
    tracker.chain_finished(result, wilson())


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_chain_told_while_it_trains_equals_one_rebuilt_from_records(
    uri: str,
    result: ChainResult,
    store: Store,
    empty_database: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
):
    with Tracker(uri, tmp_path / "spool") as tracker:
        tell(tracker, result)
    assert tracker.failures == 0
    assert capfd.readouterr() == ("", ""), "it writes over nobody's progress bar"
    assert not list((tmp_path / "spool").glob("*"))

    shutil.copy(empty_database, tmp_path / "other.db")
    other = f"sqlite:///{tmp_path / 'other.db'}"
    assert rebuild(store, other, wilson()) == 3
    assert everything(uri) == everything(other)
    assert rebuild(store, other, wilson()) == 3
    assert everything(uri) == everything(other), "a second rebuild must change nothing"


def test_a_chain_run_holds_what_people_compare(uri: str, result: ChainResult, store: Store):
    rebuild(store, uri, wilson())
    (chain,) = of_kind(uri, "chain")
    first, last = result.scores(wilson())
    assert history(uri, chain, "miou/all") == [(0, first.miou_all), (1, last.miou_all)]
    assert history(uri, chain, "miou/old") == [(1, last.miou_old)]
    assert (
        chain.data.metrics["final/miou/all_without_background"] == last.miou_all_without_background
    )
    assert chain.data.metrics["final/iou/7"] == last.iou[8]
    forgetting = result.continual(wilson()).forgetting_first_minus_last
    assert chain.data.metrics["final/forgetting_first_minus_last"] == forgetting
    assert chain.data.params["method.alpha"] == "0.5"
    assert chain.data.params["method.name"] == "wilson"
    assert chain.data.tags["stepchain.step.1"] == result.steps[1].record.key
    assert chain.data.tags["mlflow.source.git.commit"] == "0123456789abcdef"
    assert chain.info.run_name == "alpha 0.5"
    assert chain.info.status == "FINISHED"
    client = MlflowClient(uri)
    assert client.get_experiment(chain.info.experiment_id).name == "digits 6-4 overlap"
    assert {artifact.path for artifact in client.list_artifacts(chain.info.run_id, "tables")} == {
        "tables/classes.md",
        "tables/classes.json",
    }
    assert "alpha 0.5" in chain.data.tags["mlflow.note.content"]


def test_step_runs_hold_curves_data_and_lineage(uri: str, result: ChainResult, store: Store):
    rebuild(store, uri, wilson())
    base, weak = of_kind(uri, "step")
    (chain,) = of_kind(uri, "chain")
    curves = result.steps[1].curves
    assert history(uri, weak, "loss/prior") == [
        (row["iteration"], row["loss/prior"]) for row in curves
    ]
    assert "mlflow.parentRunId" not in base.data.tags, (
        "step 0 is shared by chains and stands for itself"
    )
    assert weak.data.tags["mlflow.parentRunId"] == chain.info.run_id
    assert weak.data.tags["stepchain.parent"] == base.data.tags["stepchain.key"]
    assert weak.data.metrics["miou/new"] == result.scores(wilson())[1].miou_new
    weak = MlflowClient(uri).get_run(weak.info.run_id)  # a search leaves model inputs out
    assert weak.inputs
    assert base.outputs
    assert [(item.dataset.name, item.dataset.digest) for item in weak.inputs.dataset_inputs] == [
        ("digits", "7" * 36)
    ]
    assert [item.model_id for item in weak.inputs.model_inputs] == [
        item.model_id for item in base.outputs.model_outputs
    ]


def test_a_step_shared_by_two_chains_has_one_run(uri: str, result: ChainResult, store: Store):
    twin = result.record.model_copy(
        update={"key": "f" * 16, "chain": {**result.record.chain, "name": "the same, again"}}
    )
    store.write(f"chains/{twin.key}.json", twin.model_dump_json().encode())
    assert rebuild(store, uri, wilson()) == 4
    assert len(of_kind(uri, "chain")) == 2
    assert len(of_kind(uri, "step")) == 2


def test_curves_are_there_while_the_step_still_trains(
    uri: str, result: ChainResult, tmp_path: Path
):
    with Tracker(uri, tmp_path / "spool") as tracker:
        chain = tracker.chain_started(Chain.model_validate(result.record.chain), planned(result))
        tracker.step_started(planned(result)[0], result.steps[0].record.data, chain)
        for row in result.steps[0].curves[:7]:
            tracker.curves(result.steps[0].record.key, [row])
        deadline = time.monotonic() + 30
        while not (found := of_kind(uri, "step")) or "loss" not in found[0].data.metrics:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert found[0].info.status == "RUNNING"
    assert {run.info.status for run in runs(uri)} == {"KILLED"}, (
        "a driver that leaves closes what it began"
    )


def test_a_resumed_step_finds_its_run_and_measures_no_iteration_twice(
    uri: str, result: ChainResult, tmp_path: Path
):
    step = result.steps[0]
    for rows in (
        step.curves[:20],
        [row | {"time": row["time"] + 900, "images_per_second": 1.0} for row in step.curves[10:]],
    ):
        with Tracker(uri, tmp_path / "spool") as tracker:
            chain = tracker.chain_started(
                Chain.model_validate(result.record.chain), planned(result)
            )
            tracker.step_started(planned(result)[0], step.record.data, chain)
            tracker.curves(step.record.key, rows)
            tracker.step_failed(step.record.key)
    (run,) = of_kind(uri, "step")
    assert run.info.status == "FAILED"
    assert history(uri, run, "loss") == [(row["iteration"], row["loss"]) for row in step.curves]
    assert [value for _, value in history(uri, run, "images_per_second")] == [312.0] * 20 + [
        1.0
    ] * 10


def test_a_finished_run_stays_finished_and_a_score_may_be_corrected(uri: str, result: ChainResult):
    mirror, run = RunClient(uri), build_finished_chain_run(result, wilson())
    mirror.put(run)
    mirror.put(run.model_copy(update={"status": "RUNNING"}))
    corrected = tuple(point._replace(value=0.25) for point in run.points)
    RunClient(uri).put(run.model_copy(update={"points": corrected}))
    (held,) = runs(uri)
    assert held.info.status == "FINISHED"
    assert set(held.data.metrics.values()) == {0.25}


def test_a_dead_mlflow_holds_nothing_up_and_learns_everything_later(
    uri: str,
    result: ChainResult,
    store: Store,
    empty_database: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
):
    started = time.perf_counter()
    tracker = Tracker(
        f"http://ada:secret@127.0.0.1:{closed_port()}",
        tmp_path / "spool",
        Retries(tracking_close_seconds=20),
    )
    tell(tracker, result)
    assert time.perf_counter() - started < 1, "sixty calls that were not waited for"
    with caplog.at_level(logging.WARNING):
        tracker.close()
    assert tracker.failures
    assert sum("training goes on" in message for message in caplog.messages) == 1
    assert "secret" not in caplog.text
    assert list((tmp_path / "spool").glob("*.jsonl"))

    Tracker(uri, tmp_path / "spool").close()  # the next run, which has nothing to say of its own
    assert not list((tmp_path / "spool").glob("*"))
    shutil.copy(empty_database, tmp_path / "other.db")
    rebuild(store, other := f"sqlite:///{tmp_path / 'other.db'}", wilson())
    assert everything(uri) == everything(other)


def test_an_emptied_mlflow_is_told_all_that_this_process_said(
    uri: str, result: ChainResult, tmp_path: Path
):
    with Tracker(uri, tmp_path / "spool", Retries(tracking_gather_seconds=0.01)) as tracker:
        chain = tracker.chain_started(Chain.model_validate(result.record.chain), planned(result))
        tracker.step_started(planned(result)[0], result.steps[0].record.data, chain)
        tracker.curves(result.steps[0].record.key, result.steps[0].curves[:5])
        client = MlflowClient(uri)
        deadline = time.monotonic() + 30
        while not (found := of_kind(uri, "step")) or "loss" not in found[0].data.metrics:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for run in runs(uri):
            client.delete_run(run.info.run_id)
            client._tracking_client.store._hard_delete_run(run.info.run_id)
        tracker.curves(result.steps[0].record.key, result.steps[0].curves[5:10])
    (run,) = of_kind(uri, "step")
    assert not list((tmp_path / "spool").glob("*"))
    assert history(uri, run, "loss") == [
        (row["iteration"], row["loss"]) for row in result.steps[0].curves[:10]
    ]
    assert run.data.params["seed"] == "0"


def test_a_tracker_without_a_disk_still_tells_mlflow(
    uri: str, result: ChainResult, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "spool").write_text("a file where the folder should be")
    with Tracker(uri, tmp_path / "spool") as tracker:
        tell(tracker, result, until=2)
    assert len(runs(uri)) == 3
    assert sum("cannot write" in message for message in caplog.messages) == 1


def test_spools_of_stores_far_away_outlive_the_job_and_are_kept_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("STEPCHAIN_CACHE", str(tmp_path / "cache"))
    one, other = (spool_folder(open_store(f"s3://{name}/results")) for name in ("one", "other"))
    assert one != other
    assert one.parent == other.parent == tmp_path / "cache" / "tracking-spool"
    assert (
        spool_folder(open_store(str(tmp_path / "store"))) == tmp_path / "store" / "tracking-spool"
    )


def test_a_spool_survives_its_writer_and_is_adopted_once(tmp_path: Path):
    alive, dead = Spool(tmp_path), Spool(tmp_path)
    alive.append("mine")
    dead.append("one")
    dead.append("two")
    dead.keep()
    (left,) = [path for path, _ in abandoned_messages(tmp_path)]
    with left.open("ab") as file:
        file.write(b"cut sho")
    assert [messages for _, messages in abandoned_messages(tmp_path)] == [["one", "two"]]
    assert alive.messages() == ["mine"]
    alive.discard()
    assert [path for path, _ in abandoned_messages(tmp_path)] == [left]


def test_names_and_values_fit_mlflow():
    document = {"a": {"b": 0.5, "c": None}, "d": [["x"]], "e": "text", "f": True}
    assert to_params(document) == {
        "a.b": "0.5",
        "a.c": "null",
        "d": '[["x"]]',
        "e": "text",
        "f": "true",
    }
    (point,) = curve_points(
        [{"iteration": 3, "total": 9, "time": 1.5, "loss": 0.25, "lr/head": float("nan")}]
    )
    assert point == ("loss", 0.25, 1500, 3)
