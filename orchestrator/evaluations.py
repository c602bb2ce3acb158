"""Score published steps: read the evaluation's record, or run it on the cluster and write the record.

An evaluation belongs to the very files it scored (step and attempt), to a split's content and to the way its pixels are viewed;
all of these make its key. Every step is scored as soon as it is trained, by the workers that trained it; anything else
a person wants to know of it is scored here.
"""

from functools import partial

from orchestrator import ray_train
from orchestrator.attempts import new_attempt
from orchestrator.identity import canonical_json, digest, evaluation_key
from orchestrator.place import Place
from orchestrator.provenance import provenance
from orchestrator.record import DataSource, EvaluationRecord, File, StepFailed, StepRecord
from orchestrator.store import NotFound, Store
from orchestrator.worker import Scoring, score_published
from training.config import InputError


def find_evaluation(store: Store, record: StepRecord, scoring: Scoring) -> EvaluationRecord | None:
    """The record of that evaluation of a step, None while there is none."""
    try:
        return EvaluationRecord.model_validate_json(store.read(f"{_stem(record.key, record.attempt, scoring)}.json"))
    except NotFound:
        return None


def ensure_evaluation(record: StepRecord, source: DataSource, scoring: Scoring, place: Place) -> EvaluationRecord:
    """A published step scored on a split of a dataset; runs on the cluster unless that was done before.

    Raises InputError when the dataset's classes are not those the step was trained on, StepFailed when the workers fail.
    """
    found = find_evaluation(place.store, record, scoring)
    if found is not None:
        return found
    check_classes(record, source.name, scoring.manifest.classes)
    place.say(f"scoring step {record.index} ({record.key}) on {source.name}/{source.split}")
    work = partial(score_published, place.store, record, scoring)
    try:
        confusion, device = ray_train.run(work, place.resources(), new_attempt())
    except ray_train.WorkersFailed as error:
        raise StepFailed(f"step {record.key} could not be scored: {error}") from error
    return publish_evaluation(place.store, record.key, record.attempt, source, scoring, confusion, device)


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


def publish_evaluation(
    store: Store, step: str, attempt: str, source: DataSource, scoring: Scoring, confusion: bytes, device: str
) -> EvaluationRecord:
    """Write the confusion counts (Parquet), then the record that proves them; returns the record of whoever was first."""
    split = scoring.manifest.splits[scoring.split]
    stem = _stem(step, attempt, scoring)
    store.write(f"{stem}.parquet", confusion, only_if_absent=True)
    confusion = store.read(f"{stem}.parquet")
    record = EvaluationRecord(
        key=stem.rpartition("/")[2],
        step=step,
        attempt=attempt,
        data=source,
        content=split.content,
        config=scoring.config,
        images=split.rows,
        class_names=dict(enumerate(("background", *scoring.manifest.classes))),
        confusion=File(sha256=digest(confusion), bytes=len(confusion)),
        provenance=provenance(device),
    )
    store.write(f"{stem}.json", canonical_json(record), only_if_absent=True)
    return EvaluationRecord.model_validate_json(store.read(f"{stem}.json"))


def _stem(step: str, attempt: str, scoring: Scoring) -> str:
    key = evaluation_key(step, attempt, scoring.manifest.splits[scoring.split].content, scoring.config)
    return f"evaluations/{step}/{key}"
