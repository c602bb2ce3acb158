"""Read a chain back from the store: its records, confusion counts and curves, each file checked against its record.

Everything that people look at (tables, figures, report, pictures) starts from a `ChainResult`; nothing else is asked for
a number. What the counts mean as IoU follows from a convention (`training.metrics`), chosen when they are read.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow.parquet

from orchestrator.records import layout
from orchestrator.records.repository import chain_record
from orchestrator.records.schema import ChainRecord, EvaluationRecord, StepRecord
from orchestrator.store.base import Store
from orchestrator.store.cache import CorruptedObject
from orchestrator.store.canonical import canonical_json
from training.config import Document, InputError
from training.continual_metrics import Continual, continual
from training.metrics import (
    Confusion,
    Convention,
    Groups,
    Scores,
    confusion_matrix,
    score,
)


@dataclass(frozen=True)
class StepResult:
    """One published step and how it scored."""

    record: StepRecord
    evaluation: EvaluationRecord
    confusion: Confusion
    curves: list[
        dict[str, Any]
    ]  # the rows that training logged: iteration, epoch, loss, loss/<name>, lr/<group> ...
    groups: Groups  # dataset ids of the classes learned up to here, group by group as the scenario names them

    def scores(self, convention: Convention) -> Scores:
        return score(self.confusion, self.groups, convention)

    def matrix(self, convention: Convention) -> np.ndarray:
        """Counted pixels, int64 [1 + C, 1 + C]: truth in rows, prediction in columns, background first."""
        return confusion_matrix(self.confusion, self.groups, convention)[0]


@dataclass(frozen=True)
class ChainResult:
    """A chain with all its steps. `name` tells it from the others that are shown beside it."""

    name: str
    record: ChainRecord
    steps: tuple[StepResult, ...]

    @property
    def groups(self) -> Groups:
        return self.steps[-1].groups

    def class_name(self, class_id: int) -> str:
        return self.steps[-1].evaluation.class_names[class_id]

    def scores(self, convention: Convention) -> tuple[Scores, ...]:
        """Scores after each step, in order."""
        return tuple(step.scores(convention) for step in self.steps)

    def continual(self, convention: Convention) -> Continual:
        return continual(self.scores(convention))


def load_chains(store: Store, records: Sequence[ChainRecord]) -> tuple[ChainResult, ...]:
    """Chains to be shown side by side; where a name stands twice, a piece of the key is added.

    Raises InputError when they were not scored on the same pixels, CorruptedObject when a file is not the one its record names.
    """
    names = [record.chain["name"] for record in records]
    results = tuple(
        ChainResult(
            name=name if names.count(name) == 1 else f"{name} ({record.key[:6]})",
            record=record,
            steps=tuple(
                load_step(store, record.chain["scenario"]["groups"], *keys)
                for keys in zip(record.steps, record.evaluations, strict=True)
            ),
        )
        for name, record in zip(names, records, strict=True)
    )
    first = results[0].steps[-1].evaluation
    for result in results:
        for step in result.steps:
            other = step.evaluation
            if (other.content, other.config) != (first.content, first.config):
                raise InputError(
                    f"step {step.record.index} of {result.name!r} was scored on {_scored_on(other)}, {results[0].name!r} on "
                    f"{_scored_on(first)}: such numbers do not compare; evaluate both alike, or report them apart"
                )
    return results


def load_step(
    store: Store, groups: Sequence[Sequence[str]], step_key: str, evaluation_key: str
) -> StepResult:
    """A published step with an evaluation of it; `groups`: its scenario's, by class names.

    Raises CorruptedObject when a file is not the one its record names.
    """
    record = StepRecord.model_validate_json(store.read(layout.step_record(step_key)))
    evaluation = EvaluationRecord.model_validate_json(
        store.read(layout.evaluation_record(step_key, evaluation_key))
    )
    curves = _read_verified(
        store,
        layout.published_file(step_key, record.attempt, layout.CURVES_FILE),
        record.files[layout.CURVES_FILE].sha256,
    )
    return StepResult(
        record=record,
        evaluation=evaluation,
        confusion=load_confusion(store, evaluation),
        curves=json.loads(curves),
        groups=_learned(groups, record, evaluation),
    )


def load_confusion(store: Store, evaluation: EvaluationRecord) -> Confusion:
    """The counts of a published evaluation. Raises CorruptedObject when they are not those that the record names."""
    counts = _read_verified(
        store,
        layout.evaluation_counts(evaluation.step, evaluation.key),
        evaluation.confusion.sha256,
    )
    table = pyarrow.parquet.read_table(BytesIO(counts))
    return Confusion(*(table[name].to_numpy() for name in Confusion._fields))


def _learned(
    names: Sequence[Sequence[str]], record: StepRecord, evaluation: EvaluationRecord
) -> Groups:
    """The scenario's groups as far as the step has learned them: a step of joint training has learned them all."""
    ids = {name: class_id for class_id, name in evaluation.class_names.items()}
    groups = tuple(tuple(ids[name] for name in group) for group in names)
    return tuple(group for group in groups if set(group) <= set(record.step.task.classes))


def _read_verified(store: Store, key: str, digest: str) -> bytes:
    data = store.read(key)
    if sha256(data).hexdigest() != digest:
        raise CorruptedObject(
            f"{key!r} in {store.uri} is not the file its record names: it was damaged or replaced"
        )
    return data


def _scored_on(evaluation: EvaluationRecord) -> str:
    size = evaluation.config
    where = f"{evaluation.data.name}/{evaluation.data.split} ({evaluation.content[:8]})"
    return f"{where}, short side {size.short_side or 'as is'}, crop {size.crop or 'none'}"


def named_scores(scores: Scores, class_names: Mapping[int, str]) -> dict[str, float]:
    """Scores by the names they have in MLflow: `miou/all`, `iou/dog`, `pixel_accuracy`; what does not exist is left out."""
    means = {
        name.replace("miou_", "miou/", 1): value
        for name, value in scores
        if isinstance(value, float)
    }
    return means | {
        iou_of(class_names[class_id]): value
        for class_id, value in scores.iou.items()
        if value is not None
    }


def iou_of(class_name: str) -> str:
    """The metric of a class; MLflow takes few characters."""
    return "iou/" + re.sub(r"[^\w. -]", "_", class_name)


def finish_chain(
    chain: Document,
    records: Sequence[StepRecord],
    evaluations: Sequence[EvaluationRecord],
    store: Store,
) -> ChainResult:
    """Publish the record of a chain whose steps are all published; returns all of the chain, read back."""
    record = chain_record(chain, records, evaluations)
    name = layout.chain_record(record.key)
    store.write(name, canonical_json(record), only_if_absent=True)
    (result,) = load_chains(store, [ChainRecord.model_validate_json(store.read(name))])
    return result
