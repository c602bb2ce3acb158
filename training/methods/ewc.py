"""EWC (Kirkpatrick et al., 2017): weights that the loss is sensitive to stay near their old values.

Step 0 must record which these are: `base.method.importance`. How they are measured is in `training.importance`.
"""

from typing import Literal

from pydantic import Field

from training.importance import Fisher
from training.methods.weight_penalty import PenaltyConfig, PenaltyMethod


class Config(PenaltyConfig):
    """Weight of the penalty as in MiB's Table 1."""

    name: Literal["ewc"] = "ewc"
    weight: float = Field(default=500, ge=0)


class Method(PenaltyMethod):
    config: Config
    recorder = Fisher
