"""Write runs to MLflow and find them again by key. No other file imports mlflow.

`RunClient.put` first looks at what MLflow holds. It creates a run only if none has the key, and it
logs only parameters and points that the run lacks. The same run may therefore be put many times: by
several processes, after a crash, or to a server that was emptied.

The experiment of a scenario holds the scenario's chains and steps. A step that several scenarios
share stays in the experiment in which it was first trained. The model that a step publishes is a
LoggedModel without files, because the files are in the store. MLflow uses it to show which model
came from which.
"""

import fcntl
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from orchestrator.records.schema import DataSource
from orchestrator.store.retries import DEFAULT_RETRIES
from orchestrator.tracking.held_run import HeldRun
from orchestrator.tracking.runs import Run

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Experiment
    from mlflow.entities import Run as MlflowRun

# MLflow takes 1,000 items in one call of log_batch.
BATCH_LIMITS = {"metrics": 800, "params": 100, "tags": 100}
EXPERIMENT_TAGS = {"stepchain": "scenario"}
LONGEST_TAG = 8000  # characters
LONGEST_DATASET_DIGEST = 36  # characters
Item = TypeVar("Item")


class RunRefused(Exception):
    """MLflow will never accept this run as it is, so a second attempt does not help."""


class ServerEmptied(Exception):
    """A run that MLflow held does not exist any more, because the server was emptied."""


class RunClient:
    """A client of one MLflow server or database file.

    The constructor and every method talk to MLflow. They raise what its transport raises.
    """

    def __init__(self, uri: str) -> None:
        """Connect to the MLflow at `uri`. Creating a new sqlite file takes seconds."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        # The tracker tries again later. MLflow's own retries would block its thread for minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        seconds = DEFAULT_RETRIES.tracking_request_seconds
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(seconds))
        # Importing MLflow takes seconds.
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._sqlite_folder: Path | None = None
        if uri.startswith("sqlite:///"):
            self._sqlite_folder = Path(uri.removeprefix("sqlite:///")).absolute().parent
        with self._sqlite_lock():
            self._client = MlflowClient(uri)
            self._client.search_experiments(max_results=1)
        self._held: dict[str, HeldRun] = {}

    def put(self, run: Run) -> None:
        """Make MLflow agree with `run`: create the run if need be, and add what it lacks.

        Raises:
            RunRefused: MLflow does not accept the run.
            ServerEmptied: The run was deleted since this client last wrote it.
        """
        from mlflow.exceptions import MlflowException

        try:
            held = self._held.get(run.key) or self._find_or_create(run)
            self._log(held, run)
            if run.data is not None:
                self._log_lineage(held, run)
            if run.views:
                self._save_views(held.experiment, run.views)
            self._set_status(held, run)
        except MlflowException as error:
            self._held.pop(run.key, None)
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                raise ServerEmptied(str(error)) from error
            if error.error_code == "INVALID_PARAMETER_VALUE":
                raise RunRefused(f"{run.kind} run {run.name!r}: {error.message}") from error
            raise

    def running_runs(self) -> list[Run]:
        """Return the runs that MLflow shows as running, with what is needed to end them."""
        experiments = {each.experiment_id: each.name for each in self._our_experiments()}
        if not experiments:
            return []
        found: list[MlflowRun] = []
        token = None
        while True:
            page = self._client.search_runs(
                list(experiments), "attributes.status = 'RUNNING'", page_token=token
            )
            found += page
            token = page.token
            if not token:
                break
        return [
            _running_run(run, experiments[run.info.experiment_id])
            for run in found
            if {"stepchain.key", "stepchain.kind"} <= run.data.tags.keys()
        ]

    def _find_or_create(self, run: Run) -> HeldRun:
        """Return the run with this key. Of two that were created at once, the oldest counts."""
        found = self._find(run.key)
        if found is None:
            created = self._create(run)
            found = self._find(run.key)
            if found is None or found.run_id == created.run_id:
                found = created
            else:
                self._client.delete_run(created.run_id)
        self._held[run.key] = found
        return found

    def _find(self, key: str) -> HeldRun | None:
        oldest_first = ["attributes.start_time ASC", "attributes.run_id ASC"]
        runs = self._client.search_runs(
            [experiment.experiment_id for experiment in self._our_experiments()],
            f"tags.`stepchain.key` = '{key}'",
            max_results=1,
            order_by=oldest_first,
        )
        if not runs:
            return None
        info = runs[0].info
        return HeldRun(
            info.run_id, info.experiment_id, info.status, set(runs[0].data.params), metrics=set()
        )

    def _create(self, run: Run) -> HeldRun:
        tags = {"stepchain.key": run.key, "stepchain.kind": run.kind} | run.tags
        if run.nested_in and (chain := self._find(run.nested_in)):
            tags |= {"mlflow.parentRunId": chain.run_id, "stepchain.chain": run.nested_in}
        experiment = self._find_or_create_experiment(run.experiment)
        info = self._client.create_run(experiment, run.began, tags, run.name).info
        return HeldRun(info.run_id, info.experiment_id, info.status, set(), metrics=None)

    def _our_experiments(self) -> list["Experiment"]:
        return list(self._client.search_experiments(filter_string="tags.stepchain LIKE '%'"))

    def _find_or_create_experiment(self, title: str) -> str:
        """Return the id of the experiment with this title; restore it if a person deleted it."""
        from mlflow.exceptions import MlflowException

        with self._sqlite_lock():
            found = self._client.get_experiment_by_name(title)
            if found is None:
                try:
                    return self._client.create_experiment(
                        title, self._artifact_folder(title), EXPERIMENT_TAGS
                    )
                except MlflowException as error:
                    # Another process may have created it since we looked.
                    found = self._client.get_experiment_by_name(title)
                    if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
                        raise
            if found.lifecycle_stage == "deleted":
                self._client.restore_experiment(found.experiment_id)
            for name in EXPERIMENT_TAGS.keys() - found.tags.keys():
                self._client.set_experiment_tag(found.experiment_id, name, EXPERIMENT_TAGS[name])
            return found.experiment_id

    def _artifact_folder(self, title: str) -> str | None:
        """Return the folder beside the sqlite file; None lets the server choose."""
        if self._sqlite_folder is None:
            return None
        return str(self._sqlite_folder / "mlartifacts" / re.sub(r"[^\w.-]+", "-", title))

    def _log(self, held: HeldRun, run: Run) -> None:
        """Log the parameters and points that MLflow lacks, and all tags and artifacts of `run`."""
        from mlflow.entities import Metric, Param, RunTag

        for name in held.unread_metrics(run):
            history = self._client.get_metric_history(held.run_id, name)
            held.add_history(name, {metric.step: metric.value for metric in history})
        params = [Param(name, value) for name, value in held.missing_params(run).items()]
        tags = [RunTag(name, value[:LONGEST_TAG]) for name, value in run.tags.items()]
        batches = zip_longest(
            _chunks(params, BATCH_LIMITS["params"]),
            _chunks(tags, BATCH_LIMITS["tags"]),
            _chunks(held.missing_points(run), BATCH_LIMITS["metrics"]),
            fillvalue=(),
        )
        for some_params, some_tags, points in batches:
            metrics = [Metric(*point) for point in points]
            self._client.log_batch(held.run_id, metrics, some_params, some_tags)
            held.params.update(param.key for param in some_params)
            held.add_points(points)
        for path, text in run.texts.items():
            self._client.log_text(held.run_id, text, path)

    def _log_lineage(self, held: HeldRun, run: Run) -> None:
        """Name the data that a step read, the model it started from and the model it published."""
        from mlflow.entities import LoggedModelInput, LoggedModelOutput

        stored = self._client.get_run(held.run_id)
        has_data = bool(stored.inputs and stored.inputs.dataset_inputs)
        has_parent = bool(stored.inputs and stored.inputs.model_inputs)
        has_model = bool(stored.outputs and stored.outputs.model_outputs)
        if run.data and not has_data:
            dataset = _dataset_input(run.data, run.content or run.data.manifest)
            self._client.log_inputs(held.run_id, datasets=[dataset])
        if not run.publishes:
            return
        parent = run.tags.get("stepchain.parent")
        previous = self._find_model(parent) if parent else None
        if previous and not has_parent:
            self._client.log_inputs(held.run_id, models=[LoggedModelInput(previous)])
        if not has_model:
            model = self._find_model(run.key) or self._create_model(held, run)
            last = max((point.step for point in run.points), default=0)
            self._client.log_outputs(held.run_id, [LoggedModelOutput(model, last)])

    def _save_views(self, experiment: str, views: Mapping[str, str]) -> None:
        """Save the views that the experiment lacks. A person may have changed an existing one."""
        tags = self._client.get_experiment(experiment).tags
        for name in views.keys() - tags.keys():
            self._client.set_experiment_tag(experiment, name, views[name])

    def _find_model(self, step: str) -> str | None:
        experiments = [experiment.experiment_id for experiment in self._our_experiments()]
        found = self._client.search_logged_models(
            experiments, f"name = 'step-{step}'", max_results=1
        )
        return found[0].model_id if found else None

    def _create_model(self, held: HeldRun, run: Run) -> str:
        tags = {"mlflow.model.isExternal": "true", "stepchain.key": run.key}
        model = self._client.create_logged_model(
            held.experiment, f"step-{run.key}", held.run_id, tags, run.params, "segmentation"
        )
        return self._client.finalize_logged_model(model.model_id, "READY").model_id

    def _set_status(self, held: HeldRun, run: Run) -> None:
        """Set the status. A finished run stays finished, whatever late messages ask for."""
        if run.status in (None, held.status) or held.status == "FINISHED":
            return
        if run.status == "RUNNING":
            self._client.update_run(held.run_id, status="RUNNING")
        else:
            self._client.set_terminated(held.run_id, run.status, run.ended)
        held.status = run.status

    @contextmanager
    def _sqlite_lock(self) -> Iterator[None]:
        """Let one process at a time set up an sqlite file, because two at once would destroy it."""
        if self._sqlite_folder is None:
            yield
            return
        self._sqlite_folder.mkdir(parents=True, exist_ok=True)
        with (self._sqlite_folder / ".mlflow.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _running_run(run: "MlflowRun", experiment: str) -> Run:
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


def _dataset_input(data: DataSource, content: str) -> "DatasetInput":
    from mlflow.entities import Dataset, DatasetInput, InputTag

    digest = content[:LONGEST_DATASET_DIGEST]
    dataset = Dataset(data.name, digest, "stepchain", data.model_dump_json())
    return DatasetInput(dataset, [InputTag("mlflow.data.context", data.split)])


def _chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
