"""Where results go, and who trains and watches: what a job has decided once, handed to all that works for it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console

from orchestrator.cluster.connection import cluster_nodes, connect
from orchestrator.cluster.resources import Request, Resources, settle
from orchestrator.records.provenance import person
from orchestrator.store.base import Store
from training.metrics import Convention, wilson

if TYPE_CHECKING:
    from orchestrator.tracking.runs import Run
    from orchestrator.tracking.tracker import Tracker


Tell = Callable[[dict[str, str]], None]


@dataclass(frozen=True)
class RunContext:
    """Where results go, and who trains and watches."""

    store: Store
    request: Request = field(default_factory=Request)
    console: Console = field(default_factory=Console)
    tracker: "Tracker | None" = None
    chain_run: "Run | None" = None  # what the tracker calls the chain that is being worked on
    convention: Convention = field(default_factory=wilson)  # of the scores that the tracker shows
    lease_seconds: float = 60  # after which the lease of somebody who fell silent is free
    owner: str = field(default_factory=person)  # of the leases, for people
    # Where a campaign's driver hears from its trials: {"said": words}, {"attempt": the attempt at a step that begins},
    # {"waiting": who holds the step's lease}. None: words go to the console.
    tell: Tell | None = None

    def resources(self) -> Resources:
        """What each step is given; starts Ray to see what there is."""
        connect()
        return settle(self.request, cluster_nodes())

    def say(self, text: str) -> None:
        """Tell whoever is watching."""
        if self.tell:
            self.tell({"said": text})
        else:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)
