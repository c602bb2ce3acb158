"""Read what an MLflow database holds, as tests compare it."""

from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun

from orchestrator.tracking.mlflow_client import MARK


def all_runs(uri: str) -> list[MlflowRun]:
    """Return all runs of all experiments, without the mark of what was put whole."""
    client = MlflowClient(uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = list(client.search_runs(experiments))
    for run in runs:
        run.data.tags.pop(MARK, None)
    return runs


def runs_of_kind(uri: str, kind: str) -> list[MlflowRun]:
    """Return the runs of one kind (`stepchain.kind`); steps come in the order of their index."""
    found = [run for run in all_runs(uri) if run.data.tags["stepchain.kind"] == kind]
    return sorted(found, key=lambda run: run.data.tags.get("stepchain.index", ""))


def history(uri: str, run: MlflowRun, name: str) -> list[tuple[int, float]]:
    """Return step and value of all points of a metric."""
    metrics = MlflowClient(uri).get_metric_history(run.info.run_id, name)
    return [(metric.step, metric.value) for metric in metrics]


def everything(uri: str) -> list[tuple]:
    """Return all runs with their metrics in full, without MLflow's own ids."""
    found = []
    for run in sorted(all_runs(uri), key=lambda run: run.data.tags["stepchain.key"]):
        tags = {
            name: value for name, value in run.data.tags.items() if name != "mlflow.parentRunId"
        }
        metrics = {name: history(uri, run, name) for name in run.data.metrics}
        found.append((run.info.run_name, run.info.status, run.data.params, tags, metrics))
    return found


def experiment_tags(uri: str, title: str) -> dict[str, str]:
    """Return the tags of the experiment with this title."""
    experiment = MlflowClient(uri).get_experiment_by_name(title)
    assert experiment is not None
    return experiment.tags
