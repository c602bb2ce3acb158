"""PI (Zenke et al., 2017, where it is called synaptic intelligence): weights whose way brought the loss down stay near
their old values.

Step 0 must record which these are: `base.method.importance`. How they are measured is in `training.importance`.
"""

from typing import Literal

from pydantic import Field

from training.importance import PathIntegral
from training.methods.weight_penalty import PenaltyConfig, PenaltyMethod


class Config(PenaltyConfig):
    """Weight of the penalty as in MiB's Table 1."""

    name: Literal["pi"] = "pi"
    weight: float = Field(default=500, ge=0)


class Method(PenaltyMethod):
    config: Config
    recorder = PathIntegral
