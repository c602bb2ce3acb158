"""Puts runs into MLflow and finds them again by key; the only file that knows mlflow.

`put` first looks at what is there: it creates a run only if none has the key, and logs only parameters and points that the
run lacks. So a run may be put as often as one likes, from several processes, after a crash, into an emptied server.

A scenario's experiment holds its chains and steps; a step shared with another scenario stays where it was first trained.
What a step publishes is a LoggedModel without files (those are in the store), so that MLflow shows which came from which.
"""

import fcntl
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from orchestrator.records.schema import DataSource
from orchestrator.tracking.runs import Point, Run

if TYPE_CHECKING:
    from mlflow.entities import Experiment

ONE_CALL = {
    "metrics": 800,
    "params": 100,
    "tags": 100,
}  # what MLflow takes in one log_batch: 1,000 in all
OURS = {"stepchain": "scenario"}  # the tag of our experiments
Item = TypeVar("Item")


class RefusedError(Exception):
    """MLflow will never take this run as it is: asking again does not help."""


class GoneError(Exception):
    """A run that was there is not there any more: somebody emptied the server."""


@dataclass
class Held:
    """What MLflow already holds of a run."""

    run: str  # MLflow's id
    experiment: str
    status: str
    params: set[str]
    read: (
        set[str] | None
    )  # metrics whose points are all in `points`; None: all of them, since the run was made here
    points: dict[tuple[str, int], float] = field(default_factory=dict)


class RunClient:
    """One MLflow. Making it and every method talk to MLflow, and raise whatever its transport raises."""

    def __init__(self, uri: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        # Who uses a mirror tries again later; MLflow's own trying would hold the thread for minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from mlflow import MlflowClient  # takes seconds to import

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._folder = (
            Path(uri.removeprefix("sqlite:///")).absolute().parent
            if uri.startswith("sqlite:///")
            else None
        )
        with self._alone():
            self._client = MlflowClient(uri)
            self._client.search_experiments(max_results=1)
        self._held: dict[str, Held] = {}

    def put(self, run: Run) -> None:
        """Make what `run` states true. Raises RefusedError, GoneError, and what the transport raises."""
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.exceptions import MlflowException

        try:
            held = self._held.get(run.key) or self._find_or_create(run)
            params = [
                Param(name, value) for name, value in run.params.items() if name not in held.params
            ]
            tags = [RunTag(name, value[:8000]) for name, value in run.tags.items()]
            parts = zip_longest(
                _parts(params, ONE_CALL["params"]),
                _parts(tags, ONE_CALL["tags"]),
                _parts(self._lacking(held, run), ONE_CALL["metrics"]),
                fillvalue=(),
            )
            for some_params, some_tags, points in parts:
                self._client.log_batch(
                    held.run, [Metric(*point) for point in points], some_params, some_tags
                )
                held.params.update(param.key for param in some_params)
                held.points.update({(point.name, point.step): point.value for point in points})
            for path, text in run.texts.items():
                self._client.log_text(held.run, text, path)
            if run.data is not None:
                self._link(held, run)
            if run.views:
                self._offer(held.experiment, run.views)
            self._set_status(held, run)
        except MlflowException as error:
            self._held.pop(run.key, None)
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                raise GoneError(str(error)) from error
            if error.error_code == "INVALID_PARAMETER_VALUE":
                raise RefusedError(f"{run.kind} run {run.name!r}: {error.message}") from error
            raise

    def running(self) -> list[Run]:
        """The runs that say they are running, as far as it takes to end them."""
        experiments = {each.experiment_id: each.name for each in self._ours()}
        token, found = None, []
        while experiments:
            page = self._client.search_runs(
                list(experiments), "attributes.status = 'RUNNING'", page_token=token
            )
            found += [
                run for run in page if {"stepchain.key", "stepchain.kind"} <= run.data.tags.keys()
            ]
            token = page.token
            if not token:
                break
        return [
            Run(
                key=run.data.tags["stepchain.key"],
                kind=run.data.tags["stepchain.kind"],
                experiment=experiments[run.info.experiment_id],
                name=run.info.run_name,
                began=run.info.start_time,
                tags=run.data.tags,
            )
            for run in found
        ]

    def _find_or_create(self, run: Run) -> Held:
        """The run with this key in any of our experiments; the oldest, should two processes have created it at once."""
        found = self._find(run.key)
        if found is None:
            tags = {"stepchain.key": run.key, "stepchain.kind": run.kind} | run.tags
            if run.nested_in and (above := self._find(run.nested_in)):
                tags |= {"mlflow.parentRunId": above.run, "stepchain.chain": run.nested_in}
            made = self._client.create_run(
                self._experiment(run.experiment), run.began, tags, run.name
            )
            found = self._find(run.key)
            if found is None or found.run == made.info.run_id:
                found = Held(
                    made.info.run_id, made.info.experiment_id, made.info.status, set(), read=None
                )
            else:
                self._client.delete_run(made.info.run_id)
        self._held[run.key] = found
        return found

    def _find(self, key: str) -> Held | None:
        order = ["attributes.start_time ASC", "attributes.run_id ASC"]
        for found in self._client.search_runs(
            self._experiments(), f"tags.`stepchain.key` = '{key}'", 1, 1, order
        ):
            info = found.info
            return Held(
                info.run_id, info.experiment_id, info.status, set(found.data.params), read=set()
            )
        return None

    def _ours(self) -> list["Experiment"]:
        return list(self._client.search_experiments(filter_string="tags.stepchain LIKE '%'"))

    def _experiments(self) -> list[str]:
        return [experiment.experiment_id for experiment in self._ours()]

    def _experiment(self, title: str) -> str:
        """The scenario's experiment, created if need be. Of an sqlite file, artifacts lie beside it wherever one works."""
        from mlflow.exceptions import MlflowException

        with self._alone():
            found = self._client.get_experiment_by_name(title)
            if found is None:
                place = self._folder and str(
                    self._folder / "mlartifacts" / re.sub(r"[^\w.-]+", "-", title)
                )
                try:
                    return self._client.create_experiment(title, place, OURS)
                except MlflowException as error:  # another process has just created it
                    found = self._client.get_experiment_by_name(title)
                    if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
                        raise
            if found.lifecycle_stage == "deleted":
                self._client.restore_experiment(found.experiment_id)
            for name in OURS.keys() - found.tags.keys():
                self._client.set_experiment_tag(found.experiment_id, name, OURS[name])
            return found.experiment_id

    def _lacking(self, held: Held, run: Run) -> list[Point]:
        """The points that the run does not have yet.

        A step's iteration is measured once: when it is trained again after an interruption, the first measurement stays.
        The score of a chain or a campaign may be corrected: a later value is added, and MLflow shows the latest.
        """
        if held.read is not None:
            for name in {point.name for point in run.points} - held.read:
                history = self._client.get_metric_history(held.run, name)
                held.points |= {(name, metric.step): metric.value for metric in history}
                held.read.add(name)
        new = []
        for point in run.points:
            there = held.points.get((point.name, point.step))
            if there is None:
                new.append(point)
            elif run.kind != "step" and there != point.value:
                new.append(point._replace(time=int(1000 * time.time())))
        return new

    def _link(self, held: Held, run: Run) -> None:
        """Name the data that a step read, the model that it came from and the model that it published."""
        from mlflow.entities import LoggedModelInput, LoggedModelOutput

        there = self._client.get_run(held.run)
        inputs, outputs = there.inputs, there.outputs
        if run.data and not (inputs and inputs.dataset_inputs):
            self._client.log_inputs(
                held.run, datasets=[_dataset(run.data, run.content or run.data.manifest)]
            )
        if not run.publishes:
            return
        parent = run.tags.get("stepchain.parent")
        previous = self._model(parent) if parent else None
        if previous and not (inputs and inputs.model_inputs):
            self._client.log_inputs(held.run, models=[LoggedModelInput(previous)])
        if not (outputs and outputs.model_outputs):
            model = self._model(run.key) or self._create_model(held, run)
            last = max((point.step for point in run.points), default=0)
            self._client.log_outputs(held.run, [LoggedModelOutput(model, last)])

    def _offer(self, experiment: str, views: Mapping[str, str]) -> None:
        """Save views in the experiment. One that is there stays as it is: people may change it."""
        there = self._client.get_experiment(experiment).tags
        for name in views.keys() - there.keys():
            self._client.set_experiment_tag(experiment, name, views[name])

    def _model(self, key: str) -> str | None:
        found = self._client.search_logged_models(
            self._experiments(), f"name = 'step-{key}'", max_results=1
        )
        return found[0].model_id if found else None

    def _create_model(self, held: Held, run: Run) -> str:
        tags = {"mlflow.model.isExternal": "true", "stepchain.key": run.key}
        model = self._client.create_logged_model(
            held.experiment, f"step-{run.key}", held.run, tags, run.params, "segmentation"
        )
        return self._client.finalize_logged_model(model.model_id, "READY").model_id

    def _set_status(self, held: Held, run: Run) -> None:
        """What is finished stays finished, whoever says later that it was running."""
        if run.status in (None, held.status) or held.status == "FINISHED":
            return
        if run.status == "RUNNING":
            self._client.update_run(held.run, status="RUNNING")
        else:
            self._client.set_terminated(held.run, run.status, run.ended)
        held.status = run.status

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Two processes that first touch an sqlite file at once would destroy it: one at a time."""
        if self._folder is None:
            yield
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / ".mlflow.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _dataset(data: DataSource, content: str):
    """A dataset by digest (MLflow keeps 36 characters of it)."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(data.name, content[:36], "stepchain", data.model_dump_json())
    return DatasetInput(dataset, [InputTag("mlflow.data.context", data.split)])


def _parts(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
