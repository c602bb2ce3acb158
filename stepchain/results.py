"""Read what was published: chains and steps with their scores and confusion counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.planning.campaign import with_adopted
from orchestrator.planning.chain import Chain
from orchestrator.records.repository import Repository
from orchestrator.records.results import ChainResult, StepResult, load_chains, load_step
from orchestrator.records.store_version import open_checked_store
from orchestrator.store.base import Store
from training.config import BACKGROUND, InputError, flatten_groups
from training.continual_metrics import Continual
from training.metrics import CONVENTIONS, ConventionName, Scores


@dataclass(frozen=True)
class PublishedStep:
    """A published step: its model's classes, how it scored and how it was trained.

    `load_model` and `predict` take one.
    """

    store: Store
    result: StepResult

    @property
    def key(self) -> str:
        """Return the step's key in the store."""
        return self.result.record.key

    @property
    def index(self) -> int:
        """Return the step's position in its chain; 0 is the base step."""
        return self.result.record.index

    @property
    def class_names(self) -> dict[int, str]:
        """Return the names of the classes that the model predicts, by dataset id.

        Background is 0, where the model has it. They are in the order of `confusion`'s rows and
        columns.
        """
        names = self.result.evaluation.class_names
        learned = flatten_groups(self.result.groups)
        channels = learned if self.result.background == "none" else (BACKGROUND, *learned)
        return {class_id: names[class_id] for class_id in channels}

    @property
    def curves(self) -> list[dict[str, Any]]:
        """Return the rows that training logged: iteration, loss, learning rates."""
        return self.result.curves

    def scores(self, convention: ConventionName = "wilson") -> Scores:
        """Return the step's scores as fractions of one.

        Args:
            convention: The paper whose way of counting future classes, images and background is
                used.
        """
        return self.result.scores(CONVENTIONS[convention])

    def confusion(self, convention: ConventionName = "wilson") -> np.ndarray:
        """Return counted pixels, int64 [C, C]: truth in rows, prediction in columns.

        Args:
            convention: As for `scores`.
        """
        counts = self.result.matrix(CONVENTIONS[convention])
        return counts[1:, 1:] if self.result.background == "none" else counts


@dataclass(frozen=True)
class PublishedChain:
    """A published chain: its name and its steps in order."""

    name: str
    steps: tuple[PublishedStep, ...]
    result: ChainResult

    def scores(self, convention: ConventionName = "wilson") -> tuple[Scores, ...]:
        """Return the scores after each step, in order.

        Args:
            convention: As for `PublishedStep.scores`.
        """
        return tuple(step.scores(convention) for step in self.steps)

    def continual(self, convention: ConventionName = "wilson") -> Continual:
        """Return what happened over the whole chain: forgetting, backward transfer, averages.

        Args:
            convention: As for `PublishedStep.scores`.
        """
        return self.result.continual(CONVENTIONS[convention])


def start_from(chain: Chain, step: PublishedStep) -> Chain:
    """Return the chain with an adopted model as its step 0, and with that model's network.

    Args:
        chain: Any chain. The first group of its scenario must be the classes that the model knows.
        step: An adopted model (`python -m jobs.adopt`), as `find_step` returns it.

    Raises:
        InputError: The step was trained. Chains find trained steps by themselves.
    """
    return with_adopted(chain, step.result.record)


def open_store(uri: str) -> Store:
    """Open the store that a URI names.

    Args:
        uri: A folder's path, `file:///folder` or `s3://bucket/prefix`. S3 takes its credentials
            from the AWS_* variables and files, never from the URI.

    Raises:
        StoreError: The URI is of another form, or this Stepchain does not handle the version of the
            store.
    """
    return open_checked_store(uri)


def find_chain(store: Store, wanted: str) -> PublishedChain:
    """Find a published chain.

    Args:
        store: As `open_store` returns it.
        wanted: The chain's name (the latest of that name), or the beginning of its key.

    Raises:
        InputError: There is no such chain; the message names those that there are.

    Examples:
        >>> from stepchain import find_chain, open_store
        >>> chain = find_chain(open_store("stepchain-store"), "digits_wilson")
        >>> [step.index for step in chain.steps]
        [0, 1]
        >>> 0 < chain.scores("mib")[-1].miou_all < 1
        True
    """
    repository = Repository(store)
    (result,) = load_chains(repository, [repository.chain_by_name(wanted)])
    steps = tuple(PublishedStep(store, step) for step in result.steps)
    return PublishedChain(result.name, steps, result)


def find_step(store: Store, wanted: str) -> PublishedStep:
    """Find a published step with the evaluation that its chain asked for.

    Args:
        store: As `open_store` returns it.
        wanted: `CHAIN:INDEX` with a chain's name, the step's key, or the beginning of its key.

    Raises:
        InputError: There is no such step, or it has no scores yet.

    Examples:
        >>> from stepchain import find_step, open_store
        >>> step = find_step(open_store("stepchain-store"), "digits_wilson:0")
        >>> step.class_names
        {0: 'background', 1: '0', 2: '1', 3: '2', 4: '3', 5: '4', 6: '5'}
        >>> step.confusion().shape
        (7, 7)
    """
    chain, colon, index = wanted.rpartition(":")
    if colon and index.isdigit():
        steps = find_chain(store, chain).steps
        if int(index) < len(steps):
            return steps[int(index)]
    repository = Repository(store)
    record = repository.step_by_name(wanted)
    evaluation = repository.first_evaluation(record)
    if evaluation is None:
        raise InputError(f"step {record.key} is published and not scored yet")
    names = dict(zip(record.step.task.classes, record.class_names, strict=True))
    groups: list[Sequence[str]] = []
    for group in record.step.task.groups:
        groups.append([names[class_id] for class_id in group])
    return PublishedStep(store, load_step(repository, groups, record.key, evaluation.key))
