"""Hold the outcomes of a campaign's steps and chains, and show them as tables."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from rich import box
from rich.table import Table

from orchestrator.planning.store_state import StepState, StoredStep
from training.metrics import Scores

# The states in which steps and chains can be when a run ends.
FINAL_STATES = (
    StepState.PUBLISHED,
    StepState.REUSED,
    StepState.FAILED,
    StepState.NOT_RUN,
    StepState.STOPPED,
)


@dataclass
class StepOutcome:
    """The state of a step in this run. The scheduler changes it while the campaign runs."""

    state: StepState = StepState.WAITING
    reason: str = ""
    attempts: list[str] = field(default_factory=list)  # that this run began, the newest last


def first_outcome(stored: StoredStep) -> StepOutcome:
    """Return the outcome of a step before this run does anything."""
    published = stored.state == StepState.PUBLISHED
    return StepOutcome(StepState.REUSED if published else StepState.WAITING)


@dataclass(frozen=True)
class ChainOutcome:
    """The state of a chain when the run ends, or when its last step is published."""

    name: str
    state: StepState
    reason: str = ""
    scores: Scores | None = None  # after its last step


@dataclass(frozen=True)
class CampaignOutcome:
    """The outcome of a campaign's steps and chains."""

    steps: dict[str, StepOutcome]  # by key, parents first
    chains: tuple[ChainOutcome, ...]  # in the campaign's order
    problems: tuple[str, ...]  # what was not recorded, and why a search ended early
    gpu_hours: float  # that this run has spent
    seconds: float

    @property
    def complete(self) -> bool:
        """Return whether all is published, but for chains that were stopped as asked."""
        return not self.problems and all(
            chain.state.exists or chain.state == StepState.STOPPED for chain in self.chains
        )


def outcome_tables(outcome: CampaignOutcome) -> list[Table]:
    """Return the numbers of steps and chains by state, and the unfinished chains with reasons."""
    counted = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    counted.add_column("")
    for state in FINAL_STATES:
        counted.add_column(state, justify="right")
    counted.add_row("steps", *_count(step.state for step in outcome.steps.values()))
    counted.add_row("chains", *_count(chain.state for chain in outcome.chains))
    unfinished = [chain for chain in outcome.chains if not chain.state.exists]
    if not unfinished:
        return [counted]
    table = Table("chain", "", "why", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for chain in unfinished:
        table.add_row(chain.name, chain.state, chain.reason)
    return [counted, table]


def _count(states: Iterable[StepState]) -> list[str]:
    """Return how many of the states are in each of FINAL_STATES, as text."""
    counts = Counter(states)
    return [str(counts[state]) for state in FINAL_STATES]
