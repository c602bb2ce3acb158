"""Define the events that the scheduler of a campaign reports to its bookkeeper."""

from dataclasses import dataclass

from orchestrator.execution.messages import Notice
from orchestrator.planning.store_state import StepState


@dataclass(frozen=True)
class StepStarted:
    """A trial of this run has begun an attempt at the step."""

    step: str


@dataclass(frozen=True)
class StepDone:
    """The step and its evaluations are in the store."""

    step: str
    state: StepState  # PUBLISHED by this run, or REUSED


@dataclass(frozen=True)
class StepGivenUp:
    """This run will not train the step, nor the steps that need it."""

    step: str


@dataclass(frozen=True)
class ChainDone:
    """All steps of the chain that are asked for are in the store."""

    number: int  # index of the chain in the tree


Event = Notice | StepStarted | StepDone | StepGivenUp | ChainDone
