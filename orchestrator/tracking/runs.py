"""Work out what a run in MLflow should look like from documents and records.

A `Run` states all or part of what should be true of one run, found by its key. Stating the same
twice changes nothing. Therefore what is reported while training agrees with what is reported again
from the records, after a crash or to an empty server.

The run of a chain holds its scores over the incremental steps, and `final/...` after the last step.
The run of a step holds its training curves over iterations. A chain refers to its steps by key,
because chains share steps.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from orchestrator.planning.chain import Chain, leaves
from orchestrator.planning.resolver import PlannedStep
from orchestrator.records import layout
from orchestrator.records.keys import KEY_LENGTH
from orchestrator.records.results import ChainResult, StepResult, adoption_words
from orchestrator.records.schema import DataSource, StepRecord
from orchestrator.report.chain_tables import class_table
from orchestrator.report.render import to_json, to_markdown
from orchestrator.store.canonical import digest
from orchestrator.tracking.metric_names import curve_metric, score_metrics
from training.config import Document
from training.curves import CurveRow
from training.metrics import Convention

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
# Fields of a curve's row that locate the row and measure nothing.
POSITION_FIELDS = ("iteration", "total", "time")
LONGEST_PARAM = 6000  # characters
LONGEST_NAME = 250  # characters


class Point(NamedTuple):
    """One value of a metric.

    `time` is in milliseconds since 1970. `step` is an iteration in the run of a step, and an
    incremental step in the run of a chain.
    """

    name: str
    value: float
    time: int
    step: int


class Run(Document):
    """All or part of what should be true of the run with this key.

    Empty fields leave the run as it is.
    """

    key: str
    kind: Literal["chain", "step", "campaign", "analysis"]
    experiment: str  # title of the scenario, or `campaigns`
    name: str
    began: int  # milliseconds since 1970
    status: Status | None = None
    ended: int | None = None  # milliseconds since 1970
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    points: tuple[Point, ...] = ()
    texts: dict[str, str] = {}  # artifacts by path
    views: dict[str, str] = {}  # tags of the experiment (`orchestrator.tracking.saved_views`)
    nested_in: str | None = None  # key of the chain's run
    data: DataSource | None = None
    content: str | None = None  # digest of what was read of `data`
    publishes: bool = False  # whether the step has published its model


def build_chain_run(chain: Chain, steps: Sequence[str], began: int) -> Run:
    """Return the run of a chain that begins.

    Args:
        chain: The chain.
        steps: Keys of all its steps, in order.
        began: Milliseconds since 1970.
    """
    return Run(
        key=digest({"chain": chain, "steps": list(steps)})[:KEY_LENGTH],
        kind="chain",
        experiment=chain.scenario.title,
        name=chain.name,
        began=began,
        status="RUNNING",
        params=to_params(chain.model_dump(mode="json", exclude={"name"})),
        tags={f"stepchain.step.{index}": key for index, key in enumerate(steps)},
    )


def add_step_scores(
    run: Run, records: Sequence[StepRecord], scores: Sequence[Mapping[str, float]]
) -> Run:
    """Return the run of a chain with the scores after each of its first steps.

    Args:
        run: The chain's run.
        records: The first steps of the chain, in order.
        scores: Scores after each of them, by metric name.
    """
    points: list[Point] = []
    for index, (record, values) in enumerate(zip(records, scores, strict=True)):
        points += _points(values, to_milliseconds(record.provenance.created), index)
    tags = run.tags | _origin_tags(records[-1])
    return run.model_copy(update={"points": tuple(points), "tags": tags})


def build_finished_chain_run(result: ChainResult, convention: Convention) -> Run:
    """Return the run of a published chain, with its final scores and its table."""
    chain = Chain.model_validate(result.record.chain)
    records = [step.record for step in result.steps]
    scores = [_step_scores(step, convention) for step in result.steps]
    began = _began(records[0])
    run = add_step_scores(build_chain_run(chain, result.record.steps, began), records, scores)
    continual = {
        name: value for name, value in result.continual(convention) if isinstance(value, float)
    }
    final = {f"final/{name}": value for name, value in {**scores[-1], **continual}.items()}
    # MLflow draws bars that compare runs only for a metric that has no step but 0.
    final_points = _points(final, to_milliseconds(records[-1].provenance.created), step=0)
    table = class_table([result], convention)
    text = to_markdown(table)
    tags = {
        "stepchain.record": layout.chain_record(result.record.key),
        "stepchain.convention": convention.name,
        "mlflow.note.content": text,
    }
    return run.model_copy(
        update={
            "points": (*run.points, *final_points),
            "tags": run.tags | tags,
            "texts": {
                "tables/classes.md": text,
                "tables/classes.json": json.dumps(to_json(table), indent=1),
            },
            "status": "FINISHED",
            "ended": to_milliseconds(result.record.created),
        }
    )


def build_step_run(
    step: PlannedStep | StepRecord, scenario: str, data: DataSource, chain: str | None, began: int
) -> Run:
    """Return the run of a step that is about to be trained.

    Args:
        step: The step.
        scenario: Title of its scenario.
        data: What it is trained on.
        chain: Key of the chain's run, in which every step but step 0 is nested.
        began: Milliseconds since 1970.
    """
    new_classes = ", ".join(step.class_names[len(step.step.task.previous_classes) :])
    tags = {"stepchain.index": str(step.index)}
    if step.parent:
        tags["stepchain.parent"] = step.parent
    # The settings of a training mean nothing to a step that was adopted.
    trains = step.step.method.trains
    adopted = set(type(step.step).model_fields) - {"method", "model"}
    params = to_params(step.step.model_dump(mode="json", exclude=None if trains else adopted))
    if isinstance(step, StepRecord) and step.adoption:
        tags["mlflow.note.content"] = adoption_words([step])
        tags |= {f"stepchain.adopted.{name}": text for name, text in step.adoption if text}
    return Run(
        key=step.key,
        kind="step",
        experiment=scenario,
        name=f"step {step.index} {step.step.method.name}: {new_classes}"[:LONGEST_NAME],
        began=began,
        status="RUNNING",
        params=params,
        tags=tags,
        nested_in=chain if step.index else None,
        data=data if trains else None,
        content=step.step.task.data,
    )


def build_published_step_run(
    record: StepRecord,
    scenario: str,
    chain: str | None,
    scores: Mapping[str, float],
    rows: Iterable[CurveRow],
) -> Run:
    """Return the run of a published step, complete whatever was reported of it before.

    Args:
        record: The step's record.
        scenario: Title of its scenario.
        chain: Key of the chain's run, in which every step but step 0 is nested.
        scores: Its scores, by metric name.
        rows: All rows of its training curves.
    """
    ended = to_milliseconds(record.provenance.created)
    run = build_step_run(record, scenario, record.data, chain, _began(record))
    parts = {f"train_{name}": value for name, value in record.train_parts.items()}
    seconds = {f"seconds/{name}": value for name, value in (record.seconds | parts).items()}
    measured = _points({**scores, **seconds}, ended, record.iterations)
    return run.model_copy(
        update={
            "points": (*curve_points(rows), *measured),
            "tags": run.tags | _origin_tags(record) | {"stepchain.attempt": record.attempt},
            "status": "FINISHED",
            "ended": ended,
            "publishes": True,
        }
    )


def build_step_result_run(step: StepResult, chain: Run, convention: Convention) -> Run:
    """Return the run of a published and scored step, nested in the run of a chain."""
    scores = _step_scores(step, convention)
    return build_published_step_run(step.record, chain.experiment, chain.key, scores, step.curves)


def curve_points(rows: Iterable[CurveRow]) -> tuple[Point, ...]:
    """Return the points of a training curve, each at the time at which it was measured.

    A row that is reported again gives the same points.
    """
    points: list[Point] = []
    for row in rows:
        values = {
            curve_metric(name): value for name, value in row.items() if name not in POSITION_FIELDS
        }
        points += _points(values, int(1000 * row["time"]), int(row["iteration"]))
    return tuple(points)


def to_params(document: Mapping[str, Any]) -> dict[str, str]:
    """Return each value of a document as text under its dotted name, such as `method.alpha`.

    Lists become JSON.
    """
    return {
        name: (value if isinstance(value, str) else json.dumps(value))[:LONGEST_PARAM]
        for name, value in leaves(document)
    }


def to_milliseconds(created: str) -> int:
    """Return an ISO 8601 time in milliseconds since 1970, as MLflow stores times."""
    return int(1000 * datetime.fromisoformat(created).timestamp())


def _step_scores(step: StepResult, convention: Convention) -> dict[str, float]:
    return score_metrics(step.scores(convention), step.evaluation.class_names)


def _points(values: Mapping[str, float], time: int, step: int) -> list[Point]:
    return [
        Point(name, float(value), time, step)
        for name, value in values.items()
        if math.isfinite(value)
    ]


def _began(record: StepRecord) -> int:
    return to_milliseconds(record.provenance.created) - int(1000 * sum(record.seconds.values()))


def _origin_tags(record: StepRecord) -> dict[str, str]:
    """Return where a result comes from, under the names that MLflow's pages show."""
    origin = record.provenance
    optional = {
        "mlflow.source.git.commit": origin.commit,
        "stepchain.dirty": origin.dirty,
        "mlflow.user": origin.user,
    }
    tags = {
        "mlflow.source.name": "stepchain",
        "stepchain.host": origin.host,
        "stepchain.device": origin.device,
    }
    tags |= {f"stepchain.version.{name}": version for name, version in origin.versions.items()}
    return tags | {name: value for name, value in optional.items() if value}
