"""Load chains with their records, confusion counts and curves.

Each file is checked against its record. Tables, figures, reports and pictures of chains start from
a `ChainResult`. A convention (`training.metrics`), chosen when the counts are read, turns them into
scores.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from orchestrator.records.repository import Repository
from orchestrator.records.schema import ChainRecord, EvaluationRecord, StepRecord
from training.class_groups import Background
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

BATCH = 64  # chains that are read together


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
        """Return the scores under a convention, as it applies to the step's model."""
        return score(self.confusion, self.groups, convention.for_models(self.background))

    def matrix(self, convention: Convention) -> np.ndarray:
        """Return the counted pixels, int64 [1 + C, 1 + C].

        Rows are the truth, columns the prediction, background first. A model without background has
        no pixels there.
        """
        convention = convention.for_models(self.background)
        return confusion_matrix(self.confusion, self.groups, convention)[0]

    @property
    def background(self) -> Background:
        """Return whether the step's model has a channel for background."""
        return self.record.step.task.background


def counting_words(convention: Convention, steps: Iterable[StepResult]) -> str:
    """Return the convention as sentences, and what older evaluations of the steps cannot give."""
    cropped = [step.evaluation for step in steps if step.evaluation.config.crop is not None]
    judged_by_crop = any(evaluation.counts == 1 for evaluation in cropped)
    if convention.images == "all" or not judged_by_crop:
        return convention.words
    return (
        f"{convention.words} Evaluations of older versions do not say what an image shows outside "
        "of the scored crop: there an image counts by its crop alone."
    )


def adoption_words(records: Iterable[StepRecord]) -> str:
    """Return a sentence for each step among the records that was adopted; nothing without any."""
    sentences = {}
    for record in records:
        if found := record.adoption:
            origin = f", from {found.origin}" if found.origin else ""
            sentences[record.key] = (
                f"Step {record.index} ({record.key}) was not trained here: its weights were "
                f"adopted from {found.file}{origin} (layout {found.layout}, sha256 "
                f"{found.sha256[:8]})."
            )
    return " ".join(sentences.values())


def start_words(records: Iterable[StepRecord]) -> str:
    """Return what is unusual of the steps 0 among the records: adopted, or without masks."""
    records = list(records)
    first = [record for record in records if record.index == 0]
    weak = sorted({each.key for each in first if each.step.task.supervision == "image"})
    if not weak:
        return adoption_words(records)
    more = f" and {len(weak) - 3} more" if len(weak) > 3 else ""
    sentence = f"Step 0 learned from image labels, not from masks: {', '.join(weak[:3])}{more}."
    return f"{adoption_words(records)} {sentence}".lstrip()


@dataclass(frozen=True)
class ChainResult:
    """A chain with all its steps. Its name differs from those of the chains shown beside it."""

    name: str
    record: ChainRecord
    steps: tuple[StepResult, ...]

    @property
    def groups(self) -> Groups:
        return self.steps[-1].groups

    @property
    def background(self) -> Background:
        """Return whether the chain's models have a channel for background."""
        return self.steps[-1].background

    def class_name(self, class_id: int) -> str:
        return self.steps[-1].evaluation.class_names[class_id]

    def scores(self, convention: Convention) -> tuple[Scores, ...]:
        """Return the scores after each step, in order."""
        return tuple(step.scores(convention) for step in self.steps)

    def continual(self, convention: Convention) -> Continual:
        return continual(self.scores(convention))


def fitting(convention: Convention, chains: Iterable[ChainResult]) -> Convention:
    """Return the convention in the form that holds for all of the chains, if one does."""
    without = {chain.background for chain in chains} == {"none"}
    return convention.for_models("none" if without else "class")


def load_chains(
    repository: Repository, records: Sequence[ChainRecord], with_curves: bool = True
) -> tuple[ChainResult, ...]:
    """Return chains to be shown side by side.

    A chain whose name stands twice is named with a piece of its key. A step that several chains
    share is read once.

    Args:
        repository: The records of the store.
        records: Of the chains.
        with_curves: Whether to read the training curves.

    Raises:
        InputError: The chains were not scored on the same pixels.
        CorruptedObject: A file is not the one its record names.
    """
    steps = _load_steps(repository, records, with_curves)
    names = [record.chain["name"] for record in records]
    named = Counter(names)
    results = []
    for name, record in zip(names, records, strict=True):
        shown = name if named[name] == 1 else f"{name} ({record.key[:6]})"
        results.append(ChainResult(shown, record, tuple(islice(steps, len(record.steps)))))
    _check_comparable(results)
    return tuple(results)


def load_each_chain(
    repository: Repository, records: Sequence[ChainRecord], with_curves: bool = True
) -> Iterator[ChainResult]:
    """Yield chains that need not compare, in order, under their own names.

    They are read in batches, so that a thousand chains neither wait for one read after another nor
    have all their curves in memory at once.

    Args:
        repository: The records of the store.
        records: Of the chains.
        with_curves: Whether to read the training curves.

    Raises:
        CorruptedObject: A file is not the one its record names.
    """
    for start in range(0, len(records), BATCH):
        batch = records[start : start + BATCH]
        steps = _load_steps(repository, batch, with_curves)
        for record in batch:
            own = tuple(islice(steps, len(record.steps)))
            yield ChainResult(record.chain["name"], record, own)


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


def _load_steps(
    repository: Repository, records: Sequence[ChainRecord], with_curves: bool
) -> Iterator[StepResult]:
    """Return the steps of all chains, chain by chain, each read once and many in parallel."""
    wanted: list[tuple[tuple[tuple[str, ...], ...], str, str]] = []
    for record in records:
        groups = tuple(map(tuple, record.chain["scenario"]["groups"]))
        for keys in zip(record.steps, record.evaluations, strict=True):
            wanted.append((groups, *keys))
    different = list(dict.fromkeys(wanted))
    read = repository.in_parallel(
        lambda each: load_step(repository, *each, with_curves=with_curves), different
    )
    found = dict(zip(different, read, strict=True))
    return (found[each] for each in wanted)


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
