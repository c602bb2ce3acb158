"""Define a chain as a person asks for it: scenario, model, base step and increments.

`orchestrator.planning.resolver` resolves a chain to steps.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field

from training.config import (
    Augmentation,
    Document,
    EvaluationConfig,
    MethodConfig,
    ModelConfig,
    Optimization,
)
from training.method_documents import AnyMethod, read_method
from training.scenario import Scenario


def _fine_tuning() -> MethodConfig:
    # Importing a method's module may import torch. Planning does without it until a chain needs
    # the default.
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


def with_current_recipes(chain: Chain) -> Chain:
    """Return the chain with the recipes that today's code trains.

    Raise InputError if it names the recipe of another version of the code.
    """
    base = chain.base.model_copy(update={"method": chain.base.method.with_current_recipe()})
    return chain.model_copy(update={"base": base, "method": chain.method.with_current_recipe()})


def leaves(document: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value of a dumped document with its dotted name, such as `method.alpha`.

    Lists are values.
    """
    for name, value in document.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
