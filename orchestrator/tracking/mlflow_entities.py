"""Say our things in MLflow's words, and MLflow's in ours."""

from typing import TYPE_CHECKING

from orchestrator.records.schema import DataSource
from orchestrator.tracking.runs import Run

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput
    from mlflow.entities import Run as MlflowRun

LONGEST_DATASET_DIGEST = 36  # characters


def running_run(run: "MlflowRun", experiment: str) -> Run:
    """Return what identifies a run that MLflow shows as running."""
    tags = run.data.tags
    return Run.model_validate(
        {
            "key": tags["stepchain.key"],
            "kind": tags["stepchain.kind"],
            "experiment": experiment,
            "name": run.info.run_name,
            "began": run.info.start_time,
            "tags": tags,
        }
    )


def dataset_input(data: DataSource, content: str) -> "DatasetInput":
    """Return a step's dataset, with its content's digest as far as MLflow takes one."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    digest = content[:LONGEST_DATASET_DIGEST]
    dataset = Dataset(data.name, digest, "stepchain", data.model_dump_json())
    return DatasetInput(dataset, [InputTag("mlflow.data.context", data.split)])


def lineage(stored: "MlflowRun") -> tuple[bool, bool, bool]:
    """Return whether MLflow knows the data, the parent and the model of a run that it returned."""
    return (
        bool(stored.inputs and stored.inputs.dataset_inputs),
        bool(stored.inputs and stored.inputs.model_inputs),
        bool(stored.outputs and stored.outputs.model_outputs),
    )
