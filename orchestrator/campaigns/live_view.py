"""What people see of a running campaign: on a terminal one live picture, in a log a line for whatever happens."""

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.campaigns.scheduler import StepOutcome
from orchestrator.execution.progress_display import LogLines, describe_step, print_line
from orchestrator.planning.step_tree import Node, StepTree
from orchestrator.store.retries import DEFAULT_RETRIES
from training.metrics import Scores

if TYPE_CHECKING:
    from orchestrator.campaigns.bookkeeper import ChainOutcome

SHOWN_CHAINS = 20  # finished ones in the live picture, the newest
MEANS = {"old": "miou_old", "new": "miou_new", "all": "miou_all"}


class LiveView:
    """Shows a campaign; entered as a context. Its methods are called from one thread."""

    def __init__(
        self,
        name: str,
        tree: StepTree,
        fates: Mapping[str, StepOutcome],
        console: Console,
        seconds_left: Callable[[], float | None],
        line_seconds: float = DEFAULT_RETRIES.campaign_line_seconds,
    ) -> None:
        self.progress: dict[
            str, dict[str, Any]
        ] = {}  # of running steps, as their attempts write it
        self._name, self._tree, self._fates, self._console = name, tree, fates, console
        self._seconds_left = seconds_left
        self._chains: list[ChainOutcome] = []
        self._live = (
            Live(console=console, auto_refresh=False, transient=True)
            if console.is_terminal
            else None
        )
        self._lines = LogLines(console, line_seconds)

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        """Print a sentence above the live picture, or to the log."""
        print_line(self._console, text)

    def began(self, node: Node) -> None:
        if not self._live:
            self.say(f"{self._title(node)}: begun")

    def published(self, node: Node, how: str, scores: Scores) -> None:
        """`how`: published or reused."""
        self.say(
            f"{self._title(node)}: {how}, {in_words(scores)} ({self._count()} of {len(self._fates)} steps)"
        )

    def given_up(self, node: Node) -> None:
        fate = self._fates[node.key]
        self.say(f"{self._title(node)}: {fate.state}: {fate.reason}")

    def finished(self, chain: "ChainOutcome") -> None:
        self._chains.append(chain)
        if not self._live and chain.scores:
            self.say(f"{chain.name}: finished, {in_words(chain.scores)}")

    def refresh(self) -> None:
        """Show how far all is now."""
        if self._live:
            self._live.update(self._picture(), refresh=True)
        else:
            self._lines.show(f"{self._name}: {self._summary()}")

    def _picture(self) -> Group:
        steps = Table.grid(padding=(0, 2))
        for key, fate in tuple(self._fates.items()):
            if fate.state == "running":
                node, progress = self._tree.nodes[key], self.progress.get(key, {"stage": "start"})
                bar = ProgressBar(
                    total=progress.get("total") or node.planned.iterations,
                    completed=progress.get("iteration", 0),
                )
                bar.width = 20
                steps.add_row(
                    self._title(node),
                    bar,
                    describe_step(progress, node.planned.step.optimization.batch),
                )
        finished = Table.grid(padding=(0, 2))
        for chain in self._chains[-SHOWN_CHAINS:]:
            finished.add_row(
                Text(chain.name), in_words(chain.scores) if chain.scores else chain.state
            )
        overall = Table.grid(padding=(0, 2))
        overall.add_row(
            self._name,
            ProgressBar(total=len(self._fates), completed=self._count(), width=20),
            self._summary(),
        )
        return Group(finished, overall, steps)

    def _summary(self) -> str:
        counts = Counter(fate.state for fate in self._fates.values())
        told = [
            f"{counts[state]} {state}"
            for state in ("running", "waiting", "failed", "not run", "stopped")
            if counts[state]
        ]
        left = self._seconds_left()
        if left is not None and (counts["running"] or counts["waiting"]):
            told.append(f"about {timedelta(seconds=round(left))} to go")
        return ", ".join([f"{self._count()} of {len(self._fates)} steps published", *told])

    def _count(self) -> int:
        return sum(fate.state in ("published", "reused") for fate in self._fates.values())

    def _title(self, node: Node) -> str:
        """The step and a chain that wants it, or how many do."""
        others = len(node.chains) - 1
        wanted = f"{len(node.chains)} chains" if others else node.plan.chain.name
        return f"{node.planned.title} of {wanted}"


def in_words(scores: Scores) -> str:
    """mIoU in per cent, of what exists: `old 71.2, new 30.1, all 61.1`."""
    values = {name: getattr(scores, field) for name, field in MEANS.items()}
    return "mIoU " + ", ".join(
        f"{name} {100 * value:.1f}" for name, value in values.items() if value is not None
    )
