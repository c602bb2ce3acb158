"""Find a published step by name and fetch its model, for what is done outside of datasets."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from orchestrator.execution.worker import fetch_published
from orchestrator.records.repository import Repository
from orchestrator.records.schema import StepRecord
from orchestrator.store.base import Store
from training.config import BACKGROUND, EvaluationConfig, InputError


@dataclass(frozen=True)
class PublishedModel:
    """A published step, scored or not, and how its images are seen."""

    store: Store
    record: StepRecord
    view: EvaluationConfig

    @property
    def class_names(self) -> dict[int, str]:
        """Return the name of each output channel's class by its dataset id, in channel order."""
        classes = zip(self.record.step.task.classes, self.record.class_names, strict=True)
        if self.record.step.task.background == "none":
            return dict(classes)
        return {BACKGROUND: "background"} | dict(classes)


def find_model(store: Store, wanted: str) -> PublishedModel:
    """Find a published step.

    Its view is that of its first evaluation, which is the one its chain asked for. A step that was
    never scored has the default one.

    Args:
        store: The store.
        wanted: The step's key, the beginning of one, or CHAIN:INDEX.

    Raises:
        InputError: There is no such step.
        StoreError: The store does not answer.
    """
    repository = Repository(store)
    record = repository.step_by_name(wanted)
    evaluation = repository.first_evaluation(record)
    return PublishedModel(store, record, evaluation.config if evaluation else EvaluationConfig())


@contextmanager
def fetched(store: Store, record: StepRecord) -> Iterator[Path]:
    """Yield a temporary folder with the files of a step, verified.

    Raises:
        InputError: There is no room for them, or the store lost one.
        StoreError: The store does not answer.
    """
    try:
        scratch = TemporaryDirectory(prefix="stepchain-model-")
    except OSError as error:
        raise InputError(
            f"no temporary folder can be written ({error.strerror}): set TMPDIR to one that can"
        ) from error
    with scratch as name:
        yield fetch_published(store, record, Path(name, "files"))
