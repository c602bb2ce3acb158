"""Score published steps: read the evaluation's record, or run it on the cluster and write the record.

An evaluation belongs to the very files it scored (step and attempt), to a split's content and to the way its pixels are viewed;
all of these make its key. Every step is scored as soon as it is trained, by the workers that trained it; anything else
a person wants to know of it is scored here.
"""

from functools import partial

from orchestrator.cluster import ray_train
from orchestrator.execution.context import RunContext
from orchestrator.execution.worker import score_published
from orchestrator.records.attempts import new_attempt
from orchestrator.records.publish import publish_evaluation
from orchestrator.records.repository import Repository
from orchestrator.records.schema import (
    DataSource,
    EvaluationRecord,
    Scoring,
    StepFailed,
    StepRecord,
)
from training.config import InputError


def ensure_evaluation(
    record: StepRecord, source: DataSource, scoring: Scoring, place: RunContext
) -> EvaluationRecord:
    """A published step scored on a split of a dataset; runs on the cluster unless that was done before.

    Raises InputError when the dataset's classes are not those the step was trained on, StepFailed when the workers fail.
    """
    found = Repository(place.store).find_evaluation(record, scoring)
    if found is not None:
        return found
    check_classes(record, source.name, scoring.manifest.classes)
    place.say(f"scoring step {record.index} ({record.key}) on {source.name}/{source.split}")
    work = partial(score_published, place.store, record, scoring)
    try:
        confusion, device = ray_train.run(work, place.resources(), new_attempt())
    except ray_train.WorkersFailed as error:
        raise StepFailed(f"step {record.key} could not be scored: {error}") from error
    return publish_evaluation(
        place.store, record.key, record.attempt, source, scoring, confusion, device
    )


def check_classes(record: StepRecord, dataset: str, classes: tuple[str, ...]) -> None:
    """Raise InputError unless the dataset calls every class that the step knows by the same id and name."""
    names = dict(enumerate(classes, start=1))
    for class_id, name in zip(record.step.task.classes, record.class_names, strict=True):
        if names.get(class_id) != name:
            other = f"which is {names[class_id]!r}" if class_id in names else "which does not exist"
            raise InputError(
                f"step {record.key} knows class {class_id} as {name!r}, {other} in dataset {dataset!r}: "
                "a step is scored on datasets that list the same classes in the same order"
            )
