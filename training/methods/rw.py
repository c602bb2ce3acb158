"""Train by RW, Riemannian walk (Chaudhry et al., 2018).

A quadratic penalty keeps each weight near its old value. Its importance is the sum of EWC's Fisher
information and of a path integral like PI's. The parent step must record it: set
`base.method.importance` for step 0. `training.importance` defines how it is measured.
"""

from typing import ClassVar, Literal

from pydantic import Field

from training.importance import RiemannianWalk
from training.methods.weight_penalty import PenaltyConfig, PenaltyMethod


class Config(PenaltyConfig):
    """The weight of the penalty as in MiB's Table 1."""

    name: Literal["rw"] = "rw"
    weight: float = Field(default=100, ge=0)
    measures: ClassVar[int] = 2


class Method(PenaltyMethod):
    """Cross-entropy and RW's penalty."""

    config: Config
    recorder = RiemannianWalk
