"""Define the run context: the store, the resources, the console and the tracker of a job."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from rich.console import Console

from orchestrator.cluster.give import Kind, step_kind
from orchestrator.cluster.machines import machines
from orchestrator.cluster.resources import Request, Resources, settle_kind
from orchestrator.execution.messages import Notice, OnMessage
from orchestrator.execution.progress_display import print_line
from orchestrator.planning.chain import Chain
from orchestrator.planning.resolver import PlannedStep
from orchestrator.records.provenance import person
from orchestrator.records.results import ChainResult
from orchestrator.records.schema import DataSource, StepRecord
from orchestrator.store.base import Store
from orchestrator.store.retries import DEFAULT_RETRIES, Retries
from training.curves import CurveRow
from training.metrics import Convention, Scores, wilson

ChainRun = TypeVar("ChainRun")  # the tracker's own handle of a chain


class Tracker(Protocol[ChainRun]):
    """Shows steps and chains to people while they are trained.

    Every method returns at once and never raises.
    """

    def chain_started(self, chain: Chain, steps: Sequence[PlannedStep]) -> ChainRun:
        """Return the handle of the chain that the other methods ask for."""
        ...

    def chain_progressed(
        self,
        chain: ChainRun,
        records: Sequence[StepRecord],
        scores: Sequence[Scores],
        class_names: Mapping[int, str],
    ) -> None:
        """Show the scores after each of the chain's steps so far, in order."""
        ...

    def chain_finished(self, result: ChainResult, convention: Convention) -> None:
        """Show the whole chain as it was read back from the store."""
        ...

    def chain_failed(self, chain: ChainRun) -> None:
        """Mark a chain that was started and will not be finished."""
        ...

    def chain_stopped(self, chain: ChainRun) -> None:
        """Mark a chain that was started and is not continued, as it was asked for."""
        ...

    def step_started(self, step: PlannedStep, data: DataSource, chain: ChainRun) -> None:
        """Show a step of this chain that is about to be trained on `data`."""
        ...

    def curves(self, key: str, rows: Iterable[CurveRow]) -> None:
        """Add rows to the training curves of a step that was started. A row may come again."""
        ...

    def step_finished(
        self,
        record: StepRecord,
        scores: Scores,
        class_names: Mapping[int, str],
        rows: Iterable[CurveRow],
        chain: ChainRun,
    ) -> None:
        """Show a published step with its scores and the whole of its curves."""
        ...

    def step_failed(self, key: str) -> None:
        """Mark a step whose attempt is over. It may be started again."""
        ...


@dataclass(frozen=True)
class RunContext:
    """The store, the resources, the console and the tracker of a job."""

    store: Store
    request: Request = field(default_factory=Request)
    console: Console = field(default_factory=Console)
    tracker: Tracker[Any] | None = None
    chain_run: Any = None  # the tracker's handle of the chain that is being worked on
    convention: Convention = field(default_factory=wilson)  # of the scores that the tracker shows
    owner: str = field(default_factory=person)  # of the leases, for people
    retries: Retries = DEFAULT_RETRIES
    # Whether this process shows the progress of each step. A campaign's driver does it for its
    # trials.
    follows_steps: bool = True
    # Takes the messages of a campaign's trial. None: notices go to the console.
    on_message: OnMessage | None = None
    # What each kind of work is given, where the driver of a campaign has decided it.
    settled: Mapping[Kind, Resources] | None = None

    def resources(self, kind: Kind = "increment") -> Resources:
        """Return what a kind of work is given. Starts Ray to see what there is.

        Raises:
            InputError: The cluster can never hold what the request asks for.
        """
        if self.settled:
            return self.settled[kind]
        return settle_kind(self.request, kind, machines())

    def resources_to_score(self, index: int) -> Resources:
        """Return what an evaluation is given: what its step is, unless it has a gift of its own.

        The step's workers, which stay for a while, can then score it.

        Args:
            index: Number of the step in its chain.
        """
        own = "evaluation" in self.settled if self.settled else self.request.gives("evaluation")
        return self.resources("evaluation" if own else step_kind(index))

    def notify(self, text: str) -> None:
        """Show a sentence to people: send it to the driver if there is one, else print it."""
        if self.on_message:
            self.on_message(Notice(text))
        else:
            print_line(self.console, text)
