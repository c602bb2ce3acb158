"""RW (Chaudhry et al., 2018, Riemannian walk): EWC's sensitivity and PI's contribution together decide which weights
stay near their old values.

Step 0 must record which these are: `base.method.importance`. How they are measured is in `training.importance`.
"""

from typing import Literal

from pydantic import Field

from training.importance import RiemannianWalk
from training.methods.weight_penalty import PenaltyConfig, PenaltyMethod


class Config(PenaltyConfig):
    """Weight of the penalty as in MiB's Table 1."""

    name: Literal["rw"] = "rw"
    weight: float = Field(default=100, ge=0)


class Method(PenaltyMethod):
    config: Config
    recorder = RiemannianWalk
