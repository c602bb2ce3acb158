"""What a run in MLflow should look like, worked out from documents and records; nothing here knows MLflow.

A `Run` states all or part of what should be true of one run, found by its key. Stating the same twice changes nothing, so
what was said while training and what is said again from the records, after a crash or into an empty server, agree.

A chain's run holds its scores over the incremental steps, and `final/...` after the last. A step's run holds its training
curves over iterations. A chain refers to its steps by key, because chains share steps.
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
from orchestrator.records.results import ChainResult, named_scores
from orchestrator.records.schema import DataSource, StepRecord
from orchestrator.report.chain_tables import class_table
from orchestrator.report.render import to_json, to_markdown
from orchestrator.store.canonical import digest
from training.config import Document
from training.continual_metrics import Continual
from training.curves import CurveRow
from training.metrics import Convention

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
NO_CURVE = ("iteration", "total", "time")  # of a row: where it stands, not what it measures


class Point(NamedTuple):
    """One value of a metric: `time` in milliseconds since 1970, `step` an iteration (steps) or an incremental step (chains)."""

    name: str
    value: float
    time: int
    step: int


class Run(Document):
    """All or part of what should be true of the run with this key."""

    key: str
    kind: Literal["chain", "step", "campaign", "analysis"]
    experiment: str  # the scenario's title; `campaigns`
    name: str
    began: int  # milliseconds since 1970, like `ended`
    status: Status | None = None  # None: as it is
    ended: int | None = None
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    points: tuple[Point, ...] = ()
    texts: dict[str, str] = {}  # artifacts by path
    views: dict[str, str] = {}  # of its experiment: tags of `orchestrator.tracking.saved_views`
    nested_in: str | None = None  # key of the chain's run
    data: DataSource | None = None
    content: str | None = None  # digest of what was read of `data`
    publishes: bool = False  # there is a model now, trained from the parent's


def chain_run(chain: Chain, steps: Sequence[str], began: int) -> Run:
    """A chain about to run: `steps` are the keys of all its steps."""
    return Run(
        key=digest({"chain": chain, "steps": list(steps)})[:KEY_LENGTH],
        kind="chain",
        experiment=chain.scenario.title,
        name=chain.name,
        began=began,
        status="RUNNING",
        params=flattened(chain.model_dump(mode="json", exclude={"name"})),
        tags={f"stepchain.step.{index}": key for index, key in enumerate(steps)},
    )


def scored(run: Run, records: Sequence[StepRecord], scores: Sequence[Mapping[str, float]]) -> Run:
    """A chain's run with the scores after each of its first steps."""
    points = [
        point
        for index, (record, values) in enumerate(zip(records, scores, strict=True))
        for point in _points(values, milliseconds(record.provenance.created), index)
    ]
    return run.model_copy(update={"points": tuple(points), "tags": run.tags | _origin(records[-1])})


def whole_chain(result: ChainResult, convention: Convention) -> Run:
    """A chain's run from its record, with final scores and its table."""
    chain = Chain.model_validate(result.record.chain)
    records = [step.record for step in result.steps]
    scores = [
        named_scores(scores, step.evaluation.class_names)
        for scores, step in zip(result.scores(convention), result.steps, strict=True)
    ]
    began, ended = _began(records[0]), milliseconds(result.record.created)
    run = scored(chain_run(chain, result.record.steps, began), records, scores)
    final = {
        f"final/{name}": value
        for name, value in {**scores[-1], **named_continual(result.continual(convention))}.items()
    }
    table = class_table([result], convention)
    text = to_markdown(table)
    tags = {
        "stepchain.record": layout.chain_record(result.record.key),
        "stepchain.convention": convention.name,
    }
    return run.model_copy(
        update={
            # Of a metric that knows no step but 0 MLflow draws bars to compare runs by.
            "points": (
                *run.points,
                *_points(final, milliseconds(records[-1].provenance.created), 0),
            ),
            "tags": run.tags | tags | {"mlflow.note.content": text},
            "texts": {
                "tables/classes.md": text,
                "tables/classes.json": json.dumps(to_json(table), indent=1),
            },
            "status": "FINISHED",
            "ended": ended,
        }
    )


def step_run(
    step: PlannedStep | StepRecord, scenario: str, data: DataSource, chain: str | None, began: int
) -> Run:
    """A step about to be trained. `scenario`: its title; `chain`: key of the chain's run, below which all but step 0 stand."""
    new = ", ".join(step.class_names[len(step.step.task.previous_classes) :])
    return Run(
        key=step.key,
        kind="step",
        experiment=scenario,
        name=f"step {step.index} {step.step.method.name}: {new}"[:250],
        began=began,
        status="RUNNING",
        params=flattened(step.step.model_dump(mode="json")),
        tags={"stepchain.index": str(step.index)}
        | ({"stepchain.parent": step.parent} if step.parent else {}),
        nested_in=chain if step.index else None,
        data=data,
        content=step.step.task.data,
    )


def published(
    record: StepRecord,
    scenario: str,
    chain: str | None,
    scores: Mapping[str, float],
    rows: Iterable[CurveRow],
) -> Run:
    """A step that is published, with its training curves; complete, whatever was said of it before."""
    ended = milliseconds(record.provenance.created)
    run = step_run(record, scenario, record.data, chain, _began(record))
    seconds = {f"seconds/{name}": value for name, value in record.seconds.items()}
    points = (*curve_points(rows), *_points({**scores, **seconds}, ended, record.iterations))
    tags = run.tags | _origin(record) | {"stepchain.attempt": record.attempt}
    return run.model_copy(
        update={
            "points": points,
            "tags": tags,
            "status": "FINISHED",
            "ended": ended,
            "publishes": True,
        }
    )


def curve_points(rows: Iterable[CurveRow]) -> tuple[Point, ...]:
    """Rows of a training curve, at the time they were measured: said again, they are the same points."""
    points: list[Point] = []
    for row in rows:
        values = {name: value for name, value in row.items() if name not in NO_CURVE}
        points += _points(values, int(1000 * row["time"]), int(row["iteration"]))
    return tuple(points)


def named_continual(continual: Continual) -> dict[str, float]:
    """What only a whole chain has: forgetting, backward transfer, the average over steps."""
    return {name: value for name, value in continual if isinstance(value, float)}


def flattened(document: Mapping[str, Any]) -> dict[str, str]:
    """Every value of a document as text under its dotted name, such as `method.alpha`; lists as JSON."""
    return {
        name: (value if isinstance(value, str) else json.dumps(value))[:6000]
        for name, value in leaves(document)
    }


def milliseconds(created: str) -> int:
    """An ISO 8601 time as MLflow writes times."""
    return int(1000 * datetime.fromisoformat(created).timestamp())


def _points(values: Mapping[str, float], time: int, step: int) -> list[Point]:
    return [
        Point(name, float(value), time, step)
        for name, value in values.items()
        if math.isfinite(value)
    ]


def _began(record: StepRecord) -> int:
    return milliseconds(record.provenance.created) - int(1000 * sum(record.seconds.values()))


def _origin(record: StepRecord) -> dict[str, str]:
    """Who and what made a result, under the names that MLflow's pages show."""
    made = record.provenance
    known = {
        "mlflow.source.git.commit": made.commit,
        "stepchain.dirty": made.dirty,
        "mlflow.user": made.user,
    }
    tags = {
        "mlflow.source.name": "stepchain",
        "stepchain.host": made.host,
        "stepchain.device": made.device,
    }
    versions = {f"stepchain.version.{name}": version for name, version in made.versions.items()}
    return tags | versions | {name: value for name, value in known.items() if value}
