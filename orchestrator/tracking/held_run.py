"""Remember what MLflow holds of a run, and work out what it lacks. Nothing here imports mlflow."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from orchestrator.tracking.runs import Point, Run


@dataclass
class HeldRun:
    """What MLflow already holds of a run."""

    run_id: str
    experiment: str
    status: str
    params: set[str]
    tags: dict[str, str]
    # Names of the metrics whose history is in `points`.
    # None means all of them, because this process created the run.
    metrics: set[str] | None
    points: dict[tuple[str, int], float] = field(default_factory=dict)
    # Whether MLflow knows the run's data, parent and model; None before it was asked.
    lineage: tuple[bool, bool, bool] | None = None

    @classmethod
    def created(cls, run_id: str, experiment: str, status: str, tags: dict[str, str]) -> Self:
        """Return a run that this process has just created, with nothing but tags."""
        return cls(run_id, experiment, status, set(), tags, None, lineage=(False, False, False))

    def missing_params(self, run: Run) -> dict[str, str]:
        """Return the parameters of `run` that MLflow lacks."""
        return {name: value for name, value in run.params.items() if name not in self.params}

    def missing_tags(self, run: Run) -> dict[str, str]:
        """Return the tags of `run` that MLflow lacks, or has with another value."""
        return {name: text for name, text in run.tags.items() if self.tags.get(name) != text}

    def unread_metrics(self, run: Run) -> set[str]:
        """Return the metrics of `run` whose history must be read before `missing_points`."""
        if self.metrics is None:
            return set()
        return {point.name for point in run.points} - self.metrics

    def add_history(self, name: str, values: Mapping[int, float]) -> None:
        """Remember the history of one metric, its values by step."""
        self.points |= {(name, step): value for step, value in values.items()}
        if self.metrics is not None:
            self.metrics.add(name)

    def add_points(self, points: Iterable[Point]) -> None:
        """Remember points that were logged."""
        self.points |= {(point.name, point.step): point.value for point in points}

    def missing_points(self, run: Run) -> list[Point]:
        """Return the points of `run` that must be logged.

        An iteration of a step is measured once. When the step is trained again after an
        interruption, the first measurement stays. The score of a chain or a campaign may be
        corrected: the later value is added, and MLflow shows the latest.
        """
        missing = []
        for point in run.points:
            held = self.points.get((point.name, point.step))
            if held is None:
                missing.append(point)
            elif run.kind != "step" and held != point.value:
                missing.append(point._replace(time=int(1000 * time.time())))
        return missing
