"""Score published steps: read the record of an evaluation, or compute it on the cluster.

The key of an evaluation is made of the step, the attempt, the split's content and the way images
are resized and cropped. Every step is scored on its own dataset by the workers that trained it.
This module adds other evaluations.
"""

from functools import partial

from orchestrator.cluster import workers
from orchestrator.execution.context import RunContext
from orchestrator.execution.worker import score_published
from orchestrator.records.publish import publish_evaluation
from orchestrator.records.repository import Repository
from orchestrator.records.schema import (
    DataSource,
    EvaluationRecord,
    Scoring,
    StepFailed,
    StepHasNoRoom,
    StepRecord,
)
from training.config import InputError


def ensure_evaluation(
    record: StepRecord, source: DataSource, scoring: Scoring, context: RunContext
) -> EvaluationRecord:
    """Score a published step on a split of a dataset, unless that was done before.

    Args:
        record: Of the step.
        source: The dataset and the split.
        scoring: The same with its content, and how images are resized and cropped.
        context: Of the run.

    Returns:
        The record of the evaluation.

    Raises:
        InputError: The dataset's classes are not those the step was trained on.
        StepFailed: The workers fail.
    """
    found = Repository(context.store).find_evaluation(record, scoring)
    if found is not None:
        return found
    check_classes(record, source.name, scoring.manifest.classes)
    context.notify(f"scoring step {record.index} ({record.key}) on {source.name}/{source.split}")
    resources = context.resources_to_score(record.index)
    work = partial(score_published, context.store, record, scoring)
    try:
        confusion, device = workers.run_until_done(work, resources, context.retries)
    except workers.WorkersFailed as error:
        failed = StepHasNoRoom if isinstance(error.reason, workers.NoRoom) else StepFailed
        raise failed(f"step {record.key} could not be scored: {error}") from error
    return publish_evaluation(
        context.store, record.key, record.attempt, source, scoring, confusion, device
    )


def check_classes(record: StepRecord, dataset: str, classes: tuple[str, ...]) -> None:
    """Raise InputError unless the dataset has each class of the step under its id and name."""
    names = dict(enumerate(classes, start=1))
    for class_id, name in zip(record.step.task.classes, record.class_names, strict=True):
        if names.get(class_id) != name:
            other = f"which is {names[class_id]!r}" if class_id in names else "which does not exist"
            raise InputError(
                f"step {record.key} knows class {class_id} as {name!r}, {other} in dataset "
                f"{dataset!r}: a step is scored on datasets that list the same classes in the "
                "same order"
            )
