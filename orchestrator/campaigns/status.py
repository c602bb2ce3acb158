"""What is happening to a campaign's steps: published, running and how far, failed and why, interrupted, or not begun.

All of it is read from the store, so it may be asked from any machine, whoever runs the campaign. Whether a lease is alive is
judged by its holder's clock, which is good enough to tell people.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple, get_args

from rich import box
from rich.table import Table as RichTable

from orchestrator.execution.follow import describe
from orchestrator.planning.resolver import PlannedStep
from orchestrator.planning.step_tree import Node, StepTree
from orchestrator.planning.store_state import StoredStep
from orchestrator.records import layout
from orchestrator.records.attempts import attempt_names
from orchestrator.store.base import READERS, NotFound, Store

# interrupted: begun, and nobody is at it any more, without an error; to train: its parent is there; waiting: that is not.
State = Literal["published", "to score", "running", "failed", "interrupted", "to train", "waiting"]
WORTH_A_LINE = ("running", "failed", "interrupted", "to score")


class StepStatus(NamedTuple):
    """How one step of the campaign stands."""

    key: str
    title: str  # step 1 (wilson: cow, dog)
    chains: int  # how many of the campaign want it
    state: State
    detail: str = ""  # who is at it and how far; why it failed and where to read on


def campaign_status(
    tree: StepTree, standings: Mapping[str, StoredStep], store: Store
) -> tuple[StepStatus, ...]:
    """The status of every step, parents first. `standings`: as `survey` found them. Raises StoreError."""
    with ThreadPoolExecutor(READERS) as readers:
        return tuple(
            readers.map(lambda node: _status(node, standings[node.key], store), tree.nodes.values())
        )


def counts(statuses: Sequence[StepStatus]) -> dict[str, int]:
    """How many steps are in each state that any is in."""
    found = Counter(status.state for status in statuses)
    return {state: found[state] for state in get_args(State) if found[state]}


def status_table(statuses: Sequence[StepStatus]) -> RichTable:
    """The steps that something is happening to, or has happened to; of the others `counts` says enough."""
    title = ", ".join(f"{count} {state}" for state, count in counts(statuses).items())
    shown = [status for status in statuses if status.state in WORTH_A_LINE]
    table = RichTable(
        title=title,
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title_style="bold",
        title_justify="left",
    )
    table.show_header = bool(shown)
    for heading in ("step", "key", "chains", "state", ""):
        table.add_column(
            heading, overflow="fold", justify="right" if heading == "chains" else "left"
        )
    for each in sorted(shown, key=lambda status: get_args(State).index(status.state)):
        table.add_row(each.title, each.key, str(each.chains), each.state, each.detail)
    return table


def _status(node: Node, standing: StoredStep, store: Store) -> StepStatus:
    state, detail = _looked_up(node.planned, standing, store)
    return StepStatus(node.key, node.planned.title, len(node.chains), state, detail)


def _looked_up(planned: PlannedStep, standing: StoredStep, store: Store) -> tuple[State, str]:
    """The state of a step and what there is to say of it: looks at the newest attempt of what is not published."""
    if standing.state in ("published", "to score", "waiting"):
        return standing.state, ""
    attempts = attempt_names(store, planned.key)
    newest = attempts[-1] if attempts else None
    progress = _progress(store, planned, newest) if newest else ""
    if standing.state == "training" and standing.holder:
        return "running", ": ".join(filter(None, (standing.holder.owner, progress)))
    if newest is None:
        return "to train", ""
    name = layout.error(planned.key, newest)
    try:
        error = store.read(name).decode(errors="replace")
    except NotFound:
        return "interrupted", f"at {progress}"
    return "failed", f"{_last_line(error)} ({store.uri}/{name})"


def _progress(store: Store, planned: PlannedStep, attempt: str) -> str:
    """How far an attempt has come, in words."""
    try:
        progress: dict[str, Any] = json.loads(store.read(layout.progress(planned.key, attempt)))
    except NotFound:
        progress = {"stage": "start"}
    return describe(progress, planned.step.optimization.batch)


def _last_line(text: str) -> str:
    """What a traceback ends with: the error itself."""
    return next(
        (line.strip() for line in reversed(text.splitlines()) if line.strip()),
        "no reason was given",
    )
