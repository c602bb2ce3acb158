"""Write runs to MLflow and find them again by key.

Only this file, `mlflow_database` and `mlflow_entities` import mlflow.

`RunClient.put` first looks at what MLflow holds. It creates a run only if none has the key, and it
logs only parameters and points that the run lacks. The same run may therefore be put many times: by
several processes, after a crash, or to a server that was emptied.

The experiment of a scenario holds the scenario's chains and steps. A step that several scenarios
share stays in the experiment in which it was first trained. The model that a step publishes is a
LoggedModel without files, because the files are in the store. MLflow uses it to show which model
came from which.
"""

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

from orchestrator.store.canonical import digest
from orchestrator.store.deadline import within
from orchestrator.store.locks import lock
from orchestrator.store.retries import DEFAULT_RETRIES
from orchestrator.tracking.held_run import HeldRun
from orchestrator.tracking.mlflow_database import (
    check_database,
    check_server,
    new_database,
    sqlite_file,
)
from orchestrator.tracking.mlflow_entities import dataset_input, lineage
from orchestrator.tracking.mlflow_errors import MlflowError, explained
from orchestrator.tracking.our_runs import OurRuns
from orchestrator.tracking.runs import Run

# MLflow takes 1,000 items in one call of log_batch.
BATCH_LIMITS = {"metrics": 800, "params": 100, "tags": 100}
MARK = "stepchain.put"  # tag with the digest of the whole run that was put last
EXPERIMENT_TAGS = {"stepchain": "scenario"}
LONGEST_TAG = 8000  # characters
Item = TypeVar("Item")


class RunClient:
    """A client of one MLflow server or database file.

    The constructor and every method talk to MLflow, and raise MlflowError.
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
        self.uri = uri
        self._sqlite: Path | None = None
        if uri.startswith("sqlite:///"):
            self._sqlite = sqlite_file(uri)
        with explained(uri):
            check_database(uri, DEFAULT_RETRIES.first_answer_seconds)
            with self._sqlite_lock():
                if self._sqlite and not self._sqlite.exists():
                    new_database(self._sqlite)
                self._client = MlflowClient(uri)
                if self._sqlite:
                    self._client.search_experiments(max_results=1)
                else:
                    within(
                        3 * DEFAULT_RETRIES.first_answer_seconds,
                        lambda: check_server(self._client, uri),
                    )
        self._held: dict[str, HeldRun] = {}
        self._ours = OurRuns(self._client)

    def look_up(self) -> None:
        """Look up all runs at once, so that `put` need not search for each of thousands.

        Runs that other processes create from then on are found only when one is created twice.
        """
        with explained(self.uri):
            self._held = self._ours.look_up() | self._held

    def put_whole(self, run: Run) -> None:
        """Put a run of which nothing is left out; do nothing if this very run was put before."""
        mark = digest(run.model_dump_json().encode())
        held = self._held.get(run.key)
        if held is None or held.tags.get(MARK) != mark:
            self.put(run)
            # Written last, so that it proves all that was written before.
            kept = {"key", "kind", "experiment", "name", "began"}
            self.put(Run(**run.model_dump(include=kept), tags={MARK: mark}))

    @cached_property
    def shows_models(self) -> bool:
        """Return whether MLflow shows models and which came from which, as from version 3 on."""
        from mlflow.exceptions import MlflowException

        with explained(self.uri):
            try:
                self._client.search_logged_models(["0"], max_results=1)
            except MlflowException as error:
                if error.error_code != "ENDPOINT_NOT_FOUND":
                    raise
                return False
            return True

    def put(self, run: Run) -> None:
        """Make MLflow agree with `run`: create the run if need be, and add what it lacks.

        Raises:
            RunRefused: MLflow does not accept the run.
            ServerEmptied: The run was deleted since this client last wrote it.
            MlflowError: MLflow does not answer, or cannot be used.
        """
        try:
            with explained(self.uri, run):
                held = self._held.get(run.key) or self._find_or_create(run)
                self._nest(held, run)
                self._log(held, run)
                if run.data is not None:
                    self._log_lineage(held, run)
                if run.views:
                    self._save_views(held.experiment, run.views)
                self._set_status(held, run)
        except MlflowError:
            self._held.pop(run.key, None)
            raise

    def running_runs(self) -> list[Run]:
        """Return the runs that MLflow shows as running, with what is needed to end them."""
        with explained(self.uri):
            return self._ours.running()

    def _find_or_create(self, run: Run) -> HeldRun:
        """Return the run with this key. Of several that were created at once, the oldest stays.

        Who created another may have looked before the oldest was there, and does not delete it.
        """
        found = [] if self._ours.known is not None else self._ours.find(run.key)
        if not found:
            created = self._create(run)
            found = self._ours.find(run.key) or [created]
            for younger in found[1:]:
                self._client.delete_run(younger.run_id)
            if found[0].run_id == created.run_id:
                found = [created]
        self._held[run.key] = found[0]
        return found[0]

    def _create(self, run: Run) -> HeldRun:
        tags = {"stepchain.key": run.key, "stepchain.kind": run.kind} | run.tags
        if above := run.nested_in:
            chain = self._held.get(above) or next(iter(self._ours.find(above)), None)
            if chain:
                tags |= {"mlflow.parentRunId": chain.run_id, "stepchain.chain": above}
        experiment = self._find_or_create_experiment(run.experiment)
        self._ours.add(experiment)
        info = self._client.create_run(experiment, run.began, tags, run.name).info
        return HeldRun.created(info.run_id, info.experiment_id, info.status, tags)

    def _nest(self, held: HeldRun, run: Run) -> None:
        """Nest a run in its chain's once more, if another job's run of the chain stayed."""
        above = self._held.get(run.nested_in) if run.nested_in else None
        was = held.tags.get("mlflow.parentRunId")
        if above and held.tags.get("stepchain.chain") == run.nested_in and was != above.run_id:
            self._client.set_tag(held.run_id, "mlflow.parentRunId", above.run_id)
            held.tags["mlflow.parentRunId"] = above.run_id

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
        if self._sqlite is None:
            return None
        return str(self._sqlite.parent / "mlartifacts" / re.sub(r"[^\w.-]+", "-", title))

    def _log(self, held: HeldRun, run: Run) -> None:
        """Log the parameters and points that MLflow lacks, and all tags and artifacts of `run`."""
        from mlflow.entities import Metric, Param, RunTag

        for name in held.unread_metrics(run):
            history = self._client.get_metric_history(held.run_id, name)
            held.add_history(name, {metric.step: metric.value for metric in history})
        params = [Param(name, value) for name, value in held.missing_params(run).items()]
        new = held.missing_tags(run)
        tags = [RunTag(name, value[:LONGEST_TAG]) for name, value in new.items()]
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
            held.tags |= {tag.key: run.tags[tag.key] for tag in some_tags}
            held.add_points(points)
        for path, text in run.texts.items():
            self._client.log_text(held.run_id, text, path)

    def _log_lineage(self, held: HeldRun, run: Run) -> None:
        """Name the data that a step read, the model it started from and the model it published."""
        from mlflow.entities import LoggedModelInput, LoggedModelOutput

        stored = held.lineage or lineage(self._client.get_run(held.run_id))
        has_data, has_parent, has_model = stored
        held.lineage = None  # a later message looks at what MLflow has by then
        if run.data and not has_data:
            dataset = dataset_input(run.data, run.content or run.data.manifest)
            self._client.log_inputs(held.run_id, datasets=[dataset])
        if not run.publishes or not self.shows_models:
            return
        parent = run.tags.get("stepchain.parent")
        previous = self._ours.find_model(parent) if parent else None
        if previous and not has_parent:
            self._client.log_inputs(held.run_id, models=[LoggedModelInput(previous)])
        if not has_model:
            model = self._ours.find_model(run.key) or self._create_model(held, run)
            last = max((point.step for point in run.points), default=0)
            self._client.log_outputs(held.run_id, [LoggedModelOutput(model, last)])

    def _save_views(self, experiment: str, views: Mapping[str, str]) -> None:
        """Save the views that the experiment lacks. A person may have changed an existing one."""
        tags = self._client.get_experiment(experiment).tags
        for name in views.keys() - tags.keys():
            self._client.set_experiment_tag(experiment, name, views[name])

    def _create_model(self, held: HeldRun, run: Run) -> str:
        tags = {"mlflow.model.isExternal": "true", "stepchain.key": run.key}
        model = self._client.create_logged_model(
            held.experiment, f"step-{run.key}", held.run_id, tags, run.params, "segmentation"
        )
        ready = self._client.finalize_logged_model(model.model_id, "READY")
        self._ours.models[run.key] = ready.model_id
        return ready.model_id

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
        if self._sqlite is None:
            yield
            return
        self._sqlite.parent.mkdir(parents=True, exist_ok=True)
        with (self._sqlite.parent / ".mlflow.lock").open("w") as file:
            lock(file)
            yield


def _chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
