"""Check that the files that records name are still in the store, and still are what they were.

A record proves that a step was published. Whoever cleans a bucket by hand, or copies half of a
store, can leave a record without its files.
"""

import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from orchestrator.records import layout
from orchestrator.records.keys import evaluation_keys
from orchestrator.records.repository import Repository
from orchestrator.records.schema import EvaluationRecord, File, Scoring, StepRecord
from orchestrator.store.base import NotFound, Store
from orchestrator.store.cache import file_sha256

log = logging.getLogger(__name__)

# Files that are read at the same time. Each is one download to the disk, of up to half a gigabyte.
VERIFIERS = 4
NOTHING: Mapping[str, int] = {}


class NamedFile(NamedTuple):
    """An object that a record names by its digest."""

    key: str
    file: File
    record: str  # key of the record


class Verification(NamedTuple):
    """What reading the files of records again found."""

    files: int
    bytes: int
    problems: tuple[str, ...]  # a sentence for each file that is not what its record names

    def __str__(self) -> str:
        """Return the finding in a sentence."""
        read = f"{self.files:,} published files ({self.bytes / 1e6:,.1f} MB) were read again: "
        if not self.problems:
            return f"{read}each is what its record names"
        return f"{read}{len(self.problems):,} are gone or damaged"


def files_of_step(record: StepRecord) -> list[NamedFile]:
    """Return the files that a step published."""
    name = layout.step_record(record.key)
    return [
        NamedFile(layout.published_file(record.key, record.attempt, each), file, name)
        for each, file in record.files.items()
    ]


def counts_of(evaluation: EvaluationRecord) -> NamedFile:
    """Return the file of an evaluation's counts."""
    key = layout.evaluation_counts(evaluation.step, evaluation.key)
    name = layout.evaluation_record(evaluation.step, evaluation.key)
    return NamedFile(key, evaluation.confusion, name)


def missing_file(
    store: Store, record: StepRecord, listed: Mapping[str, int] = NOTHING
) -> str | None:
    """Return in a sentence which file of a published step is gone, and warn; None if none is.

    Args:
        store: The store.
        record: Of the step.
        listed: Bytes of objects by key, as a list has shown them. It saves the request.
    """
    if all(listed.get(each.key) == each.file.bytes for each in files_of_step(record)):
        return None
    problem = problem_of_files(store, record)
    if problem:
        log.warning("%s", problem)
    return problem


def problem_of_files(store: Store, record: StepRecord) -> str | None:
    """Return in a sentence which file of a published step is gone, None if all are there.

    It takes one request.
    """
    folder = layout.files_folder(record.key, record.attempt)
    found = {entry.key: entry.bytes for entry in store.entries(f"{folder}/")}
    for each in files_of_step(record):
        if found.get(each.key) != each.file.bytes:
            return (
                f"step {record.key} is published, and its file {each.key!r} is gone from the "
                f"store {store.uri}, or has another size: delete {each.record!r}, and the step is "
                "trained again"
            )
    return None


def is_scored(
    repository: Repository,
    record: StepRecord,
    scoring: Scoring,
    listed: Mapping[str, int] = NOTHING,
) -> bool:
    """Return whether a published step was scored, and the counts are there; warn if they are not.

    Args:
        repository: The records of the store.
        record: Of the step.
        scoring: How it is to be scored.
        listed: Bytes of objects by key, as a list has shown them. It saves the requests.
    """
    for key in evaluation_keys(record, scoring):
        names = (
            layout.evaluation_record(record.key, key),
            layout.evaluation_counts(record.key, key),
        )
        if all(listed.get(name) for name in names):
            return True
    evaluation = repository.find_evaluation(record, scoring)
    return evaluation is not None and has_counts(repository.store, evaluation)


def has_counts(store: Store, evaluation: EvaluationRecord) -> bool:
    """Return whether an evaluation's counts are in the store, by one request; warn if not."""
    named = counts_of(evaluation)
    if there := store.exists(named.key):
        return there
    log.warning(
        "step %s is scored, and the counts %r are gone from the store %s: delete %r, and the step "
        "is scored again",
        evaluation.step,
        named.key,
        store.uri,
        named.record,
    )
    return there


def verify(store: Store, named: Iterable[NamedFile]) -> Verification:
    """Read files again and compare their digests. From a bucket, that downloads all of them.

    Raises:
        StoreError: The store does not answer.
    """
    files = list(named)
    with ThreadPoolExecutor(VERIFIERS) as readers:
        problems = list(readers.map(lambda each: _problem(store, each), files))
    read = sum(each.file.bytes for each in files)
    return Verification(len(files), read, tuple(problem for problem in problems if problem))


def _problem(store: Store, named: NamedFile) -> str | None:
    """Return a sentence about a file that is not what its record names, None if it is."""
    try:
        found = _sha256(store, named.key)
    except NotFound:
        return f"{named.key} is gone, and {named.record} names it"
    if found == named.file.sha256:
        return None
    return f"{named.key} is damaged: its sha256 is {found}, and {named.record} names another"


def _sha256(store: Store, key: str) -> str:
    """Return the digest of an object's bytes as they are in the store now."""
    local = store.local_path(key)
    if local is not None and local.is_file():
        return file_sha256(local)
    with TemporaryDirectory(prefix="stepchain-") as scratch:
        path = Path(scratch, "object")
        store.download(key, path)
        return file_sha256(path)
