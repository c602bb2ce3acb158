"""Show the status of each step of a campaign.

Everything is read from the store, so any machine can show the status, whichever machine runs the
campaign.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from rich import box
from rich.table import Table

from orchestrator.execution.progress_display import describe_step
from orchestrator.planning.step_tree import Node, StepTree
from orchestrator.planning.store_state import (
    StepState,
    StoredStep,
    look_up_steps,
)
from orchestrator.records import layout
from orchestrator.store.base import Store

WORTH_A_LINE = (
    StepState.TO_SCORE,
    StepState.RUNNING,
    StepState.FAILED,
    StepState.INTERRUPTED,
)
SHOWN_ALIKE = 3  # of the steps that failed with the same error


class StepStatus(NamedTuple):
    """The status of one step of a campaign."""

    key: str
    title: str  # step 1 (wilson: cow, dog)
    chains: int  # how many of the campaign's chains want the step
    state: StepState
    detail: str = ""  # which worker trains it and how far it is, or why it failed
    error: str = ""  # of its newest attempt, if that failed


def campaign_status(tree: StepTree, store: Store) -> tuple[StepStatus, ...]:
    """Return the status of every step, parents first."""
    found = look_up_steps(tree, store, details=True)
    return tuple(_step_status(node, found[key], store) for key, node in tree.nodes.items())


def counts(statuses: Sequence[StepStatus]) -> dict[StepState, int]:
    """Return how many steps are in each state, without states that no step is in."""
    found = Counter(status.state for status in statuses)
    return {state: found[state] for state in StepState if found[state]}


def status_table(statuses: Sequence[StepStatus]) -> Table:
    """Return a table of the steps that run, failed or are to be scored, titled with all counts."""
    title = ", ".join(f"{count} {state}" for state, count in counts(statuses).items())
    shown = [status for status in statuses if status.state in WORTH_A_LINE]
    table = Table(
        title=title,
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title_style="bold",
        title_justify="left",
    )
    table.show_header = bool(shown)
    for heading in ("step", "key", "chains", "state", ""):
        justify = "right" if heading == "chains" else "left"
        table.add_column(heading, overflow="fold", justify=justify)
    alike: Counter[str] = Counter()
    for each in sorted(shown, key=lambda status: WORTH_A_LINE.index(status.state)):
        if each.error:
            alike[each.error] += 1
        if alike[each.error] <= SHOWN_ALIKE:
            table.add_row(each.title, each.key, str(each.chains), each.state, each.detail)
    for error, count in alike.items():
        if count > SHOWN_ALIKE:
            more = f"{count - SHOWN_ALIKE} more"
            table.add_row(more, "", "", StepState.FAILED, f"{error} (--json names them)")
    return table


def _step_status(node: Node, stored: StoredStep, store: Store) -> StepStatus:
    detail = _describe(node, stored, store)
    error = ""
    if stored.state == StepState.FAILED and stored.details and stored.details.error:
        error = _last_line(stored.details.error)
    return StepStatus(node.key, node.planned.title, len(node.chains), stored.state, detail, error)


def _describe(node: Node, stored: StoredStep, store: Store) -> str:
    """Return the details of a step besides its state."""
    details = stored.details
    progress = ""
    if details:
        progress = describe_step(details.progress, node.planned.step.optimization.batch)
    if stored.holder:
        return ": ".join(filter(None, (stored.holder.owner, progress)))
    if details is None:
        return ""
    if details.error is None:
        return f"at {progress}"
    where = f"{store.uri}/{layout.error(node.key, details.attempt)}"
    return f"{_last_line(details.error)} ({where})"


def _last_line(traceback: str) -> str:
    """Return the last line of a traceback, which is the error itself."""
    lines = [line.strip() for line in traceback.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason was given"
