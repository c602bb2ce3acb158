"""The client writes what MLflow lacks, and leaves the rest as it is."""

import pytest

from orchestrator.records.results import ChainResult
from orchestrator.tracking.held_run import HeldRun
from orchestrator.tracking.mlflow_client import RunClient
from orchestrator.tracking.mlflow_errors import RunDeleted
from orchestrator.tracking.runs import build_finished_chain_run
from tests.support.mlflow_runs import all_runs
from training.metrics import wilson


def test_a_finished_run_stays_finished_and_a_score_may_be_corrected(uri: str, result: ChainResult):
    client = RunClient(uri)
    run = build_finished_chain_run(result, wilson())
    client.put(run)
    client.put(run.model_copy(update={"status": "RUNNING"}))
    corrected = tuple(point._replace(value=0.25) for point in run.points)
    RunClient(uri).put(run.model_copy(update={"points": corrected}))
    (held,) = all_runs(uri)
    assert held.info.status == "FINISHED"
    assert set(held.data.metrics.values()) == {0.25}


@pytest.mark.parametrize("later", [-1000, 1000], ids=["older", "younger"])
def test_of_two_runs_that_were_created_at_once_one_stays_whoever_looked_first(
    uri: str, result: ChainResult, later: int, monkeypatch: pytest.MonkeyPatch
):
    run = build_finished_chain_run(result, wilson())
    first, second = RunClient(uri), RunClient(uri)
    tags = {"stepchain.key": "k", "stepchain.kind": "step"}
    nested = run.model_copy(update={"key": "k", "kind": "step", "tags": tags, "nested_in": run.key})
    for each in (run, nested):
        first.put(each)
    find = second._ours.find
    # The second looked before the first created its run, and creates its own only now.
    monkeypatch.setattr(second._ours, "find", lambda key: looked.pop() if looked else find(key))
    looked: list[list[HeldRun]] = [[]]
    second.put(run.model_copy(update={"began": run.began + later}))
    (held,) = [each for each in all_runs(uri) if each.data.tags["stepchain.key"] == run.key]
    assert held.info.start_time == run.began + min(0, later)
    if later < 0:
        with pytest.raises(RunDeleted, match="which was deleted"):
            first.put(run.model_copy(update={"tags": run.tags | {"again": "yes"}}))
    first.put(run.model_copy(update={"tags": run.tags | {"again": "yes"}}))
    first.put(nested)
    (step,) = [each for each in all_runs(uri) if each.data.tags["stepchain.key"] == "k"]
    (held,) = [each for each in all_runs(uri) if each.data.tags["stepchain.key"] == run.key]
    assert step.data.tags["mlflow.parentRunId"] == held.info.run_id
    assert held.data.tags["again"] == "yes"
