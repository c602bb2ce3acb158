"""A chain as a person asks for it: scenario, model, base and increments. Resolved to steps by `orchestrator.planning.resolver`."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field

from training.config import (
    AnyMethod,
    Augmentation,
    Document,
    EvaluationConfig,
    MethodConfig,
    ModelConfig,
    Optimization,
    read_method,
)
from training.scenario import Scenario


def _fine_tuning() -> MethodConfig:
    # Importing a method's module imports torch, which planning does without until a chain needs the default.
    return read_method({"name": "fine-tuning"})


class Base(Document):
    """How step 0 is trained."""

    method: AnyMethod = Field(default_factory=_fine_tuning)
    optimization: Optimization = Optimization()


class Chain(Document):
    """Steps 0..T of one variant."""

    name: str  # for people; no part of any key
    scenario: Scenario
    base: Base = Field(default_factory=Base)
    method: AnyMethod = Field(default_factory=_fine_tuning)
    optimization: Optimization = Optimization(encoder_lr=0.001, head_lr=0.01)
    model: ModelConfig = ModelConfig()
    augmentation: Augmentation = Augmentation()
    evaluation: EvaluationConfig = EvaluationConfig()
    seed: int = Field(default=42, ge=0)


def leaves(document: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a dumped document under its dotted name, such as `method.alpha`; lists are values."""
    for name, value in document.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
