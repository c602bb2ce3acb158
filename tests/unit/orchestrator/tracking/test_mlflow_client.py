"""The client writes what MLflow lacks, and leaves the rest as it is."""

from orchestrator.records.results import ChainResult
from orchestrator.tracking.mlflow_client import RunClient
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
