"""Find our experiments, runs and models among all that an MLflow holds."""

from collections.abc import Iterator
from typing import Any

from orchestrator.tracking.held_run import HeldRun
from orchestrator.tracking.mlflow_entities import running_run
from orchestrator.tracking.runs import Run

OLDEST_FIRST = ["attributes.start_time ASC", "attributes.run_id ASC"]


class OurRuns:
    """Searches one MLflow. Its methods raise what MLflow's client raises.

    Attributes:
        known: Ids of our experiments, after `look_up`; None: they are looked up each time, because
            other processes may add to them.
        models: The models that this process created, by step.
    """

    def __init__(self, client: Any) -> None:
        """Search by an MlflowClient."""
        self._client = client
        self.known: list[str] | None = None
        self.models: dict[str, str] = {}

    def experiments(self) -> list[Any]:
        """Return our experiments."""
        return list(self._client.search_experiments(filter_string="tags.stepchain LIKE '%'"))

    def add(self, experiment: str) -> None:
        """Note an experiment that was created or found."""
        if self.known is not None and experiment not in self.known:
            self.known.append(experiment)

    def look_up(self) -> dict[str, HeldRun]:
        """Return all our runs by key, and keep which experiments there are."""
        self.known = self._ids()
        held: dict[str, HeldRun] = {}
        for run in self.search(""):
            if (key := run.data.tags.get("stepchain.key")) is not None:
                held.setdefault(key, _held_run(run))
        return held

    def search(self, condition: str) -> Iterator[Any]:
        """Yield the runs of our experiments that meet a condition, the oldest first."""
        token = None
        while experiments := self._ids():
            page = self._client.search_runs(
                experiments, condition, order_by=OLDEST_FIRST, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                break

    def running(self) -> list[Run]:
        """Return the runs that MLflow shows as running, with what is needed to end them."""
        names = {each.experiment_id: each.name for each in self.experiments()}
        return [
            running_run(run, names[run.info.experiment_id])
            for run in self.search("attributes.status = 'RUNNING'")
            if {"stepchain.key", "stepchain.kind"} <= run.data.tags.keys()
        ]

    def find(self, key: str) -> list[HeldRun]:
        """Return the runs with a key, the oldest first: two jobs may have created it at once."""
        condition = f"tags.`stepchain.key` = '{key}'"
        runs = self._client.search_runs(self._ids(), condition, order_by=OLDEST_FIRST)
        return [_held_run(run) for run in runs]

    def find_model(self, step: str) -> str | None:
        """Return the id of the model that a step published."""
        if step in self.models:
            return self.models[step]
        found = self._client.search_logged_models(
            self._ids(), f"name = 'step-{step}'", max_results=1
        )
        return found[0].model_id if found else None

    def _ids(self) -> list[str]:
        if self.known is not None:
            return self.known
        return [experiment.experiment_id for experiment in self.experiments()]


def _held_run(run: Any) -> HeldRun:
    """Return what is known of a run that a search found. It lacks the history of metrics."""
    info, data = run.info, run.data
    return HeldRun(
        info.run_id, info.experiment_id, info.status, set(data.params), data.tags, metrics=set()
    )
