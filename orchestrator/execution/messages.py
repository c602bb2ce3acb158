"""Define the messages that a trial sends to the driver of its campaign while it runs.

A trial runs in a process of its own, so a message must be picklable and small.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Notice:
    """A sentence for people."""

    text: str


@dataclass(frozen=True)
class WaitingForLease:
    """Another process holds the step's lease, and the trial waits for it."""

    owner: str


@dataclass(frozen=True)
class WaitingForWorkers:
    """The step's lease is free, and the trial waits for workers before it takes it."""


@dataclass(frozen=True)
class AttemptStarted:
    """A new attempt at the step begins."""

    attempt: str


@dataclass(frozen=True)
class WorkersStarted:
    """The attempt's workers have found room, and started."""


@dataclass(frozen=True)
class StepPublished:
    """The step and its evaluations are in the store."""

    attempt: str  # that published the step


@dataclass(frozen=True)
class TrialFailed:
    """The trial ends without the step."""

    reason: str


Message = (
    Notice
    | WaitingForLease
    | WaitingForWorkers
    | AttemptStarted
    | WorkersStarted
    | StepPublished
    | TrialFailed
)
OnMessage = Callable[[Message], None]
