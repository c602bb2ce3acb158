"""Train by PI, the path integral method, also called synaptic intelligence (Zenke et al., 2017).

A quadratic penalty keeps each weight near its old value, in proportion to how much its updates
lowered the loss. The parent step must record the importance: set `base.method.importance` for step
0. `training.importance` defines how it is measured.
"""

from typing import Literal

from pydantic import Field

from training.importance import PathIntegral
from training.methods.weight_penalty import PenaltyConfig, PenaltyMethod


class Config(PenaltyConfig):
    """The weight of the penalty as in MiB's Table 1."""

    name: Literal["pi"] = "pi"
    weight: float = Field(default=500, ge=0)


class Method(PenaltyMethod):
    """Cross-entropy and PI's penalty."""

    config: Config
    recorder = PathIntegral
