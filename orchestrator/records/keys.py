"""Make the keys of steps, evaluations and chains."""

from collections.abc import Sequence
from typing import Any

from orchestrator.store.canonical import digest
from training.config import Document, EvaluationConfig, StepConfig

KEY_LENGTH = 16


def step_key(step: StepConfig, parent: str | None) -> str:
    """Key of a step: its whole document and the key of the step it continues from (None for step 0)."""
    return _key({"step": step, "parent": parent})


def evaluation_key(step: str, attempt: str, content: str, config: EvaluationConfig) -> str:
    """Key of an evaluation: the weights (step key and attempt), the split's content digest, and how its pixels are viewed."""
    return _key({"step": step, "attempt": attempt, "content": content, "config": config})


def chain_key(chain: Document, steps: Sequence[str], evaluations: Sequence[str]) -> str:
    """Key of a chain: what was asked for (a `Chain`), name included, and the keys of what came of it, both in step order.

    Nothing trained depends on this key. The whole request enters it so that a chain's record never meets another's content.
    """
    return _key({"chain": chain, "steps": list(steps), "evaluations": list(evaluations)})


def _key(value: dict[str, Any]) -> str:
    return digest(value)[:KEY_LENGTH]
