"""Make the keys of steps, evaluations and chains."""

from collections.abc import Sequence
from typing import Any

from orchestrator.store.canonical import digest
from training.config import Document, EvaluationConfig, StepConfig

KEY_LENGTH = 16


def step_key(step: StepConfig, parent: str | None) -> str:
    """Return the key of a step: its whole document and its parent's key, None for step 0."""
    return _key({"step": step, "parent": parent})


def evaluation_key(step: str, attempt: str, content: str, config: EvaluationConfig) -> str:
    """Return the key of an evaluation.

    Args:
        step: Key of the step. With the attempt it names the weights.
        attempt: The attempt that published the step.
        content: Content digest of the split.
        config: How the images of the split are viewed.
    """
    return _key({"step": step, "attempt": attempt, "content": content, "config": config})


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
