"""Load chains with their records, confusion counts and curves.

Each file is checked against its record. Tables, figures, reports and pictures of chains start from
a `ChainResult`. A convention (`training.metrics`), chosen when the counts are read, turns them into
scores.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from orchestrator.records.repository import Repository
from orchestrator.records.schema import ChainRecord, EvaluationRecord, StepRecord
from training.config import InputError
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
    """A published step and its scores."""

    record: StepRecord
    evaluation: EvaluationRecord
    confusion: Confusion
    # The rows that training logged: iteration, epoch, loss, loss/<name>, lr/<group> ...
    # Empty when the curves were not read.
    curves: list[dict[str, Any]]
    # Dataset ids of the classes learned up to here, group by group as the scenario names them.
    groups: Groups

    def scores(self, convention: Convention) -> Scores:
        """Return the scores under a convention."""
        return score(self.confusion, self.groups, convention)

    def matrix(self, convention: Convention) -> np.ndarray:
        """Return the counted pixels, int64 [1 + C, 1 + C].

        Rows are the truth, columns the prediction, background first.
        """
        return confusion_matrix(self.confusion, self.groups, convention)[0]


@dataclass(frozen=True)
class ChainResult:
    """A chain with all its steps. Its name differs from those of the chains shown beside it."""

    name: str
    record: ChainRecord
    steps: tuple[StepResult, ...]

    @property
    def groups(self) -> Groups:
        return self.steps[-1].groups

    def class_name(self, class_id: int) -> str:
        return self.steps[-1].evaluation.class_names[class_id]

    def scores(self, convention: Convention) -> tuple[Scores, ...]:
        """Return the scores after each step, in order."""
        return tuple(step.scores(convention) for step in self.steps)

    def continual(self, convention: Convention) -> Continual:
        return continual(self.scores(convention))


def load_chains(repository: Repository, records: Sequence[ChainRecord]) -> tuple[ChainResult, ...]:
    """Return chains to be shown side by side.

    A chain whose name stands twice is named with a piece of its key. A step that several chains
    share is read once.

    Raises:
        InputError: The chains were not scored on the same pixels.
        CorruptedObject: A file is not the one its record names.
    """
    steps = _load_steps(repository, records)
    names = [record.chain["name"] for record in records]
    results = []
    for name, record in zip(names, records, strict=True):
        shown = name if names.count(name) == 1 else f"{name} ({record.key[:6]})"
        results.append(ChainResult(shown, record, tuple(islice(steps, len(record.steps)))))
    _check_comparable(results)
    return tuple(results)


def load_step(
    repository: Repository,
    groups: Sequence[Sequence[str]],
    step: str,
    evaluation: str,
    with_curves: bool = True,
) -> StepResult:
    """Return a published step with an evaluation of it.

    Args:
        repository: The records of the store.
        groups: The class names of the step's scenario, group by group.
        step: Key of the step.
        evaluation: Key of the evaluation.
        with_curves: Whether to read the training curves.

    Raises:
        NotFound: There is no such step or evaluation.
        CorruptedObject: A file is not the one its record names.
    """
    record = repository.step(step)
    scored = repository.evaluation(step, evaluation)
    return StepResult(
        record=record,
        evaluation=scored,
        confusion=repository.counts(scored),
        curves=repository.curves(record) if with_curves else [],
        groups=_learned(groups, record, scored),
    )


def _load_steps(repository: Repository, records: Sequence[ChainRecord]) -> Iterator[StepResult]:
    """Return the steps of all chains, chain by chain, read in parallel."""
    wanted = []
    for record in records:
        groups = record.chain["scenario"]["groups"]
        for keys in zip(record.steps, record.evaluations, strict=True):
            wanted.append((groups, *keys))
    return iter(repository.in_parallel(lambda each: load_step(repository, *each), wanted))


def _check_comparable(results: Sequence[ChainResult]) -> None:
    first = results[0].steps[-1].evaluation
    for result in results:
        for step in result.steps:
            other = step.evaluation
            if (other.content, other.config) != (first.content, first.config):
                raise InputError(
                    f"step {step.record.index} of {result.name!r} was scored on "
                    f"{_scored_on(other)}, {results[0].name!r} on {_scored_on(first)}: "
                    "such numbers do not compare; evaluate both alike, or report them apart"
                )


def _learned(
    names: Sequence[Sequence[str]], record: StepRecord, evaluation: EvaluationRecord
) -> Groups:
    """Return the groups of the scenario that the step has learned. Joint training learns all."""
    ids = {name: class_id for class_id, name in evaluation.class_names.items()}
    known = set(record.step.task.classes)
    learned = []
    for group in names:
        group_ids = tuple(ids[name] for name in group)
        if known.issuperset(group_ids):
            learned.append(group_ids)
    return tuple(learned)


def _scored_on(evaluation: EvaluationRecord) -> str:
    size = evaluation.config
    where = f"{evaluation.data.name}/{evaluation.data.split} ({evaluation.content[:8]})"
    return f"{where}, short side {size.short_side or 'as is'}, crop {size.crop or 'none'}"
