"""Say that a step was trained elsewhere: its weights were adopted.

There is no `Method` here, because nothing is trained. The document, with the model's and the
classes' ids, is the identity of the step.
"""

from typing import ClassVar, Literal

from training.config import MethodConfig


class Config(MethodConfig):
    """The weights, and the names of the classes in the order of the channels 1, 2, ..."""

    name: Literal["adopted"] = "adopted"
    weights: str  # sha256 of the published model.safetensors
    classes: tuple[str, ...]
    trains: ClassVar[bool] = False
    needs_previous: ClassVar[bool] = False
    classifier: ClassVar[Literal["pointwise", "ssul"] | None] = None
