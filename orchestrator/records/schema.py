"""Define the records of steps, evaluations and chains.

A record is written last and is the only proof that something exists: without a record there is no
step. Every number that is shown anywhere comes from a record and from the files that it names by
digest. `orchestrator.records.layout` says where each record lies in a store.
"""

from dataclasses import dataclass
from typing import Any

from pydantic import Field

from training.config import Document, EvaluationConfig
from training.data.manifest import Manifest
from training.step_config import StepConfig


class StepFailed(Exception):
    """A step could not be trained or scored. The message says why, and where the details are."""


class StepHasNoRoom(StepFailed):
    """No machine came that can hold the step's workers. Another try would wait as long."""


class File(Document):
    """A published file, by digest."""

    sha256: str
    bytes: int


class Provenance(Document):
    """Where a result came from. It enters no key and must not hold a secret."""

    commit: str | None
    dirty: str | None  # digest of the uncommitted difference, None if there is none
    versions: dict[str, str]
    user: str
    host: str
    device: str
    created: str  # UTC, ISO 8601


class DataSource(Document):
    """The dataset that a step or an evaluation read: its name, manifest digest and split."""

    name: str
    manifest: str
    split: str


class StepRequest(Document):
    """The step that the first attempt was asked to train. It is for people, and part of no key."""

    format: int = 1
    key: str
    title: str
    step: StepConfig
    index: int  # 0 for the base step
    parent: str | None  # key of the parent step
    asked_by: str  # user and host
    created: str  # UTC, ISO 8601


class Adoption(Document):
    """Where the weights of a step came from that was not trained by us."""

    name: str  # under which it was adopted first
    file: str  # its name, without its folder
    sha256: str  # of the file
    layout: str  # whose names the file had (training.models.layouts)
    origin: str  # in a person's words


class StepRecord(Document):
    """The proof that a step is published."""

    format: int = 1
    key: str
    step: StepConfig
    index: int  # 0 for the base step
    parent: str | None  # key of the parent step
    parent_attempt: str | None
    attempt: str
    files: dict[str, File]  # by name below attempts/<attempt>/files/
    class_names: tuple[str, ...]  # of step.task.classes, without background
    data: DataSource
    iterations: int
    seconds: dict[str, float]  # wait, start, fetch, train, publish, evaluate, stop
    # Parts of seconds["train"]: data, checkpoint. A record of an older version has none.
    train_parts: dict[str, float] = {}
    images_per_second: float | None
    resources: dict[str, Any]
    provenance: Provenance
    # None: the step was trained. An adopted one has no curves, times and resources, and `data` is
    # the dataset whose class ids it has.
    adoption: Adoption | None = Field(default=None, json_schema_extra={"legacy": None})


# The version of an evaluation's counts. Those of version 2 also name, by rows of no pixels, the
# classes that an image shows outside of the crop.
COUNTS = 2


class EvaluationRecord(Document):
    """One published step scored on one split at one resolution."""

    format: int = 1
    key: str
    step: str
    attempt: str
    data: DataSource
    content: str  # content digest of the split
    config: EvaluationConfig
    images: int
    class_names: dict[int, str]  # every class of the dataset by its id, background 0 included
    confusion: File  # Parquet: image, truth, predicted, pixels; truth 255 is void
    counts: int = 1  # their version
    provenance: Provenance


class ChainRecord(Document):
    """The steps of one chain in order, with the document that asked for them."""

    format: int = 1
    key: str
    chain: dict[str, Any]  # the Chain document
    steps: tuple[str, ...]  # step keys
    evaluations: tuple[str, ...]  # key of each step's own evaluation
    created: str


@dataclass(frozen=True)
class Scoring:
    """The split that a step is scored on, and how its images are viewed."""

    dataset: str  # its name
    manifest: Manifest
    split: str
    config: EvaluationConfig

    @property
    def content(self) -> str:
        """Return the content digest of the split."""
        return self.manifest.splits[self.split].content
