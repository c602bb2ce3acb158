"""Show a running campaign: a live picture on a terminal, a line for each event in a log."""

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.campaigns.outcome import ChainOutcome, StepOutcome
from orchestrator.execution.progress_display import LogLines, describe_step, print_line
from orchestrator.planning.step_tree import Node, StepTree
from orchestrator.planning.store_state import StepState
from orchestrator.store.retries import DEFAULT_RETRIES
from training.metrics import Scores

SHOWN_CHAINS = 20  # the newest finished chains, in the live picture
BAR_WIDTH = 20  # characters
MEANS = {"old": "miou_old", "new": "miou_new", "all": "miou_all"}
# The states that the summary counts besides published steps.
COUNTED_STATES = (
    StepState.RUNNING,
    StepState.WAITING,
    StepState.FAILED,
    StepState.NOT_RUN,
    StepState.STOPPED,
)


class LiveView:
    """Shows a campaign while its context is entered. Its methods are called from one thread."""

    def __init__(
        self,
        name: str,
        tree: StepTree,
        outcomes: Mapping[str, StepOutcome],
        console: Console,
        seconds_left: Callable[[], float | None],
        line_seconds: float = DEFAULT_RETRIES.campaign_line_seconds,
    ) -> None:
        """Prepare the view of a campaign.

        Args:
            name: Of the campaign.
            tree: Its steps.
            outcomes: The scheduler's, which change while the campaign runs.
            console: A terminal gets the live picture, anything else gets lines.
            seconds_left: Returns the expected time to the end, or None.
            line_seconds: Time between two lines about the whole campaign in a log.
        """
        self.progress: dict[str, dict[str, Any]] = {}  # of running steps, as attempts write it
        self._name = name
        self._tree = tree
        self._outcomes = outcomes
        self._console = console
        self._seconds_left = seconds_left
        self._chains: list[ChainOutcome] = []
        self._lines = LogLines(console, line_seconds)
        self._live: Live | None = None
        if console.is_terminal:
            self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def report(self, text: str) -> None:
        """Print a sentence above the live picture, or to the log."""
        print_line(self._console, text)

    def step_started(self, node: Node) -> None:
        """Report to the log that an attempt at a step begins. The picture shows it by itself."""
        if not self._live:
            self.report(f"{_title(node)}: begun")

    def step_done(self, node: Node, state: StepState, scores: Scores) -> None:
        """Report a step that exists. `state`: PUBLISHED or REUSED."""
        count = f"{self._published()} of {len(self._outcomes)} steps"
        self.report(f"{_title(node)}: {state}, {describe_scores(scores)} ({count})")

    def step_given_up(self, node: Node) -> None:
        """Report a step that this run will not train, and why."""
        outcome = self._outcomes[node.key]
        self.report(f"{_title(node)}: {outcome.state}: {outcome.reason}")

    def chain_done(self, chain: ChainOutcome) -> None:
        """Report a finished chain with its scores."""
        self._chains.append(chain)
        if not self._live and chain.scores:
            self.report(f"{chain.name}: finished, {describe_scores(chain.scores)}")

    def refresh(self) -> None:
        """Show how far the campaign is now."""
        if self._live:
            self._live.update(self._picture(), refresh=True)
        elif self._lines.due:
            self._lines.show(f"{self._name}: {self._summary()}")

    def _picture(self) -> Group:
        """Return the finished chains, a bar for the campaign, and a bar for each running step."""
        finished = Table.grid(padding=(0, 2))
        for chain in self._chains[-SHOWN_CHAINS:]:
            scores = describe_scores(chain.scores) if chain.scores else chain.state
            finished.add_row(Text(chain.name), scores)
        overall = Table.grid(padding=(0, 2))
        bar = ProgressBar(len(self._outcomes), self._published(), width=BAR_WIDTH)
        overall.add_row(self._name, bar, self._summary())
        running = Table.grid(padding=(0, 2))
        for key, outcome in tuple(self._outcomes.items()):
            if outcome.state == StepState.RUNNING:
                self._add_running(running, self._tree.nodes[key])
        return Group(finished, overall, running)

    def _add_running(self, table: Table, node: Node) -> None:
        progress = self.progress.get(node.key, {"stage": "start"})
        total = progress.get("total") or node.planned.iterations
        bar = ProgressBar(total, progress.get("iteration", 0), width=BAR_WIDTH)
        text = describe_step(progress, node.planned.step.optimization.batch)
        table.add_row(_title(node), bar, text)

    def _summary(self) -> str:
        # The outcomes of a searched campaign grow on another thread.
        counts = Counter(outcome.state for outcome in tuple(self._outcomes.values()))
        parts = [f"{self._published()} of {len(self._outcomes)} steps published"]
        parts += [f"{counts[state]} {state}" for state in COUNTED_STATES if counts[state]]
        left = self._seconds_left()
        if left is not None and (counts[StepState.RUNNING] or counts[StepState.WAITING]):
            parts.append(f"about {timedelta(seconds=round(left))} to go")
        return ", ".join(parts)

    def _published(self) -> int:
        return sum(outcome.state.exists for outcome in tuple(self._outcomes.values()))


def _title(node: Node) -> str:
    """Return the step and the chain that wants it, or how many chains do."""
    several = len(node.chains) > 1
    wanted = f"{len(node.chains)} chains" if several else node.plan.chain.name
    return f"{node.planned.title} of {wanted}"


def describe_scores(scores: Scores) -> str:
    """Return the mIoU in per cent, as far as it exists: `mIoU old 71.2, new 30.1, all 61.1`."""
    values = {name: getattr(scores, field) for name, field in MEANS.items()}
    known = {name: value for name, value in values.items() if value is not None}
    return "mIoU " + ", ".join(f"{name} {100 * value:.1f}" for name, value in known.items())
