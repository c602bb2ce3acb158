"""Write every score of every step as one long table for pandas, Polars, DuckDB or R.

A row is one number: its chain, step, metric and class, and its value as an exact fraction. Every
field of the chain's document stands beside it under its dotted name, so each axis of a sweep is a
column to group by. `metric` is a name of `training.score_definitions`, or `breakdown_right`,
`breakdown_background`, `breakdown_new` or `breakdown_other_old`: what the pixels of old classes
were predicted as.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet

from orchestrator.planning.chain import leaves
from orchestrator.records.results import ChainResult
from training.metrics import Convention, Scores
from training.prediction_breakdown import break_down_old_classes

TYPES = {
    "chain": pyarrow.string(),
    "chain_key": pyarrow.string(),
    "step": pyarrow.int64(),
    "step_key": pyarrow.string(),
    "last": pyarrow.bool_(),  # whether this is the last step of the chain
    "metric": pyarrow.string(),
    "class": pyarrow.string(),  # null for numbers of several classes
    "value": pyarrow.float64(),  # null for a quantity that does not exist
    "convention": pyarrow.string(),
}
NOT_METRICS = ("images", "iou", "miou_groups")  # fields of Scores that hold no single mean
METRICS = [name for name in Scores.model_fields if name not in NOT_METRICS]


class _Number(NamedTuple):
    """One number of a chain."""

    step: int
    metric: str
    class_name: str | None
    value: float | None


def write_scores(chains: Sequence[ChainResult], convention: Convention, path: Path) -> Path:
    """Write the long table of the chains to `path` and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(scores(chains, convention), path, compression="zstd")
    return path


def scores(chains: Sequence[ChainResult], convention: Convention) -> pyarrow.Table:
    """Return the long table of the chains."""
    rows: list[tuple[Any, ...]] = []
    counts = []
    for chain in chains:
        numbers = [_row(chain, number, convention) for number in _numbers(chain, convention)]
        rows += numbers
        counts.append(len(numbers))
    columns = zip(*rows, strict=True) if rows else [()] * len(TYPES)
    arrays = {}
    for (name, kind), values in zip(TYPES.items(), columns, strict=True):
        arrays[name] = pyarrow.array(values, kind)
    documents = [chain.record.chain for chain in chains]
    return pyarrow.table(arrays | _settings(documents, counts))


def _row(chain: ChainResult, number: _Number, convention: Convention) -> tuple[Any, ...]:
    """Return a row of the table, in the order of TYPES."""
    return (
        chain.name,
        chain.record.key,
        number.step,
        chain.steps[number.step].record.key,
        number.step == len(chain.steps) - 1,
        number.metric,
        number.class_name,
        number.value,
        convention.name,
    )


def _numbers(chain: ChainResult, convention: Convention) -> Iterator[_Number]:
    """Yield all numbers of a chain. Those of the whole chain belong to its last step."""
    for step, each in enumerate(chain.scores(convention)):
        for class_id, iou in each.iou.items():
            yield _Number(step, "iou", chain.class_name(class_id), iou)
        for metric in METRICS:
            yield _Number(step, metric, None, getattr(each, metric))
    last = len(chain.steps) - 1
    yield from _continual_numbers(chain, convention, last)
    yield from _breakdown_numbers(chain, convention, last)


def _continual_numbers(chain: ChainResult, convention: Convention, last: int) -> Iterator[_Number]:
    """Yield forgetting and transfer of the chain and of each class."""
    continual = chain.continual(convention)
    for metric, value in continual:
        if metric not in ("classes", "groups"):
            yield _Number(last, metric, None, value)
    for class_id, kept in continual.classes.items():
        for metric, value in kept:
            yield _Number(last, metric, chain.class_name(class_id), value)


def _breakdown_numbers(chain: ChainResult, convention: Convention, last: int) -> Iterator[_Number]:
    """Yield what the pixels of old classes were predicted as, of all of them and of each."""
    old = break_down_old_classes(chain.steps[-1].matrix(convention), chain.groups)
    for prediction, share in old.pooled or ():
        yield _Number(last, f"breakdown_{prediction}", None, share)
    for class_id, shares in old.by_class.items():
        class_name = chain.class_name(class_id)
        for prediction, share in shares or ():
            yield _Number(last, f"breakdown_{prediction}", class_name, share)


def _settings(
    documents: Sequence[Mapping[str, Any]], counts: Sequence[int]
) -> dict[str, pyarrow.Array]:
    """Return a column for every field of the chains' documents.

    Args:
        documents: The chains' documents.
        counts: Number of rows of each chain. Its values are repeated as often.
    """
    flat = [dict(leaves(document)) for document in documents]
    names: dict[str, None] = {}
    for fields in flat:
        names |= dict.fromkeys(fields)
    names.pop("name", None)
    columns = {}
    for name in names:
        values = _to_one_type([fields.get(name) for fields in flat])
        repeated: list[Any] = []
        for value, count in zip(values, counts, strict=True):
            repeated += [value] * count
        columns[name] = pyarrow.array(repeated)
    return columns


def _to_one_type(values: Sequence[Any]) -> list[Any]:
    """Return the values of a column as one type: numbers if all are numbers, else text."""
    types = {type(value) for value in values if value is not None}
    if types in ({bool}, {int}):
        return list(values)
    if types <= {bool, int, float}:
        return [_to_float(value) for value in values]
    return [_to_text(value) for value in values]


def _to_float(value: float | None) -> float | None:
    return None if value is None else float(value)


def _to_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)
