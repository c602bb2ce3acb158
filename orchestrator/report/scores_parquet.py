"""Every score of every step as one long table, a Parquet file to be opened with pandas, Polars, DuckDB or R.

A row is one number: which chain and step, which metric, of which class, and its value as an exact fraction. Beside it stands
every field of the chain's document under its dotted name, so that whatever a sweep varied is a column to group by. `metric` is
a name of `training.metrics.DEFINITIONS`, or `flow_right`, `flow_background`, `flow_new` and `flow_other_old`: what became of
the pixels of old classes.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from orchestrator.planning.chain import leaves
from orchestrator.records.results import ChainResult
from training.config import flatten_groups
from training.metrics import Convention
from training.prediction_breakdown import prediction_breakdown

KINDS = {
    "chain": pyarrow.string(),
    "chain_key": pyarrow.string(),
    "step": pyarrow.int64(),
    "step_key": pyarrow.string(),
} | {
    "last": pyarrow.bool_(),  # whether it is the chain's last step
    "metric": pyarrow.string(),
    "class": pyarrow.string(),  # null: of no single class
    "value": pyarrow.float64(),  # null: does not exist
    "convention": pyarrow.string(),
}


def write_scores(chains: Sequence[ChainResult], convention: Convention, path: Path) -> Path:
    """Write the long table; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(scores(chains, convention), path, compression="zstd")
    return path


def scores(chains: Sequence[ChainResult], convention: Convention) -> pyarrow.Table:
    """The long table of these chains."""
    columns: dict[str, list[Any]] = {name: [] for name in KINDS}
    counts = []
    for chain in chains:
        before = len(columns["value"])
        for step, metric, of_class, value in _numbers(chain, convention):
            last = step == len(chain.steps) - 1
            row = (
                chain.name,
                chain.record.key,
                step,
                chain.steps[step].record.key,
                last,
                metric,
                of_class,
                value,
            )
            for name, cell in zip(columns, (*row, convention.name), strict=True):
                columns[name].append(cell)
        counts.append(len(columns["value"]) - before)
    arrays = {name: pyarrow.array(values, KINDS[name]) for name, values in columns.items()}
    return pyarrow.table(arrays | _fields([chain.record.chain for chain in chains], counts))


def _numbers(
    chain: ChainResult, convention: Convention
) -> Iterator[tuple[int, str, str | None, float | None]]:
    """Step, metric, class and value of all that is known of a chain; what only a whole chain has stands at its last step."""
    scores = chain.scores(convention)
    for step, found in enumerate(scores):
        for class_id, iou in found.iou.items():
            yield step, "iou", chain.class_name(class_id), iou
        for name, value in found:
            if (name.startswith("miou_") and name != "miou_groups") or name == "pixel_accuracy":
                yield step, name, None, value
    over, last = chain.continual(convention), len(scores) - 1
    for name, value in over:
        if name not in ("classes", "groups"):
            yield last, name, None, value
    for class_id, kept in over.classes.items():
        for name, value in kept:
            yield last, name, chain.class_name(class_id), value
    old = flatten_groups(chain.groups[:-1])
    matrix = chain.steps[-1].matrix(convention)
    for classes, of_class in (
        [(old, None), *(([c], chain.class_name(c)) for c in old)] if old else []
    ):
        shares = prediction_breakdown(matrix, chain.groups, classes)
        for name, value in shares or ():
            yield last, f"flow_{name}", of_class, value


def _fields(
    documents: Sequence[Mapping[str, Any]], counts: Sequence[int]
) -> dict[str, pyarrow.Array]:
    """Every field of the documents as a column that repeats each document's value as often as `counts` says."""
    flat = [dict(leaves(document)) for document in documents]
    found = {}
    for name in dict.fromkeys(name for fields in flat for name in fields if name != "name"):
        values = _alike([fields.get(name) for fields in flat])
        repeated = [
            value for value, count in zip(values, counts, strict=True) for _ in range(count)
        ]
        found[name] = pyarrow.array(repeated)
    return found


def _alike(values: Sequence[Any]) -> list[Any]:
    """Values of one column in one type: numbers as numbers if all are, else text."""
    known = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in known) or all(
        isinstance(value, int) for value in known
    ):
        return list(values)
    if all(isinstance(value, int | float) for value in known):
        return [None if value is None else float(value) for value in values]
    return [
        value if value is None or isinstance(value, str) else json.dumps(value) for value in values
    ]
