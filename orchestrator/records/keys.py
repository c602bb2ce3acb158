"""Make the keys of steps, evaluations and chains."""

from collections.abc import Sequence
from typing import Any

from orchestrator.records.schema import COUNTS, Scoring, StepRecord
from orchestrator.store.canonical import digest
from training.config import Document, EvaluationConfig
from training.step_config import StepConfig

KEY_LENGTH = 16


def shares(folder: str) -> list[str]:
    """Return prefixes of all that lies below a folder of keys, to be listed side by side."""
    return [f"{folder}{digit}" for digit in "0123456789abcdef"]


def step_key(step: StepConfig, parent: str | None) -> str:
    """Return the key of a step: its whole document and its parent's key, None for step 0."""
    return _key({"step": step, "parent": parent})


def evaluation_key(
    step: str, attempt: str, content: str, config: EvaluationConfig, counts: int = 1
) -> str:
    """Return the key of an evaluation.

    Args:
        step: Key of the step. With the attempt it names the weights.
        attempt: The attempt that published the step.
        content: Content digest of the split.
        config: How the images of the split are viewed.
        counts: The version of its counts (`orchestrator.records.schema.COUNTS`).
    """
    identity = {"step": step, "attempt": attempt, "content": content, "config": config}
    return _key(identity if counts == 1 else identity | {"counts": counts})


def evaluation_keys(record: StepRecord, scoring: Scoring) -> list[str]:
    """Return the keys of a published step's evaluation, that of the newest version first."""
    return [
        evaluation_key(record.key, record.attempt, scoring.content, scoring.config, counts)
        for counts in range(COUNTS, 0, -1)
    ]


def chain_key(chain: Document, steps: Sequence[str], evaluations: Sequence[str]) -> str:
    """Return the key of a chain's record. No training depends on it.

    Args:
        chain: The whole `Chain`, name included, so that no two records of different content meet.
        steps: Keys of its steps, in order.
        evaluations: Keys of the evaluations of its steps, in order.
    """
    return _key({"chain": chain, "steps": list(steps), "evaluations": list(evaluations)})


def _key(value: dict[str, Any]) -> str:
    return digest(value)[:KEY_LENGTH]
