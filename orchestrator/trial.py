"""What a campaign's trial does: see to one step and its evaluations, try again what failed, tell the driver.

A trial needs nothing but its `Part` and the store, so it runs on any process of the cluster and can be started again at any
moment. It starts the step's workers and waits for them; by itself it holds no CPU and no GPU.
"""

from dataclasses import dataclass, replace

from rich.console import Console

from orchestrator.evaluations import ensure_evaluation
from orchestrator.place import Place, Tell
from orchestrator.plan import PlannedStep
from orchestrator.planner import PlannedChain
from orchestrator.record import DataSource, StepFailed
from orchestrator.resources import Request
from orchestrator.steps import ensure_step, find_record
from orchestrator.store import Store, StoreError
from orchestrator.tree import Node
from orchestrator.worker import Scoring
from training.config import InputError


@dataclass(frozen=True)
class Part:
    """All that a trial must know."""

    planned: PlannedStep
    plan: PlannedChain  # of a chain that wants the step; without its steps
    scorings: tuple[tuple[DataSource, Scoring], ...]
    store: Store
    request: Request
    lease_seconds: float
    owner: str  # of the lease, for people, and for the driver to know its own trials' leases by
    retries: int


def part(node: Node, place: Place, owner: str, retries: int) -> Part:
    """A node's part of the work."""
    plan = replace(node.plan, steps=())
    return Part(node.planned, plan, node.scorings, place.store, place.request, place.lease_seconds, owner, retries)


def train_part(part: Part, tell: Tell) -> None:
    """Publish the step and its evaluations, unless they are. Tells {"published": the attempt that did}, or {"failed": why}."""
    place = Place(part.store, part.request, Console(quiet=True), lease_seconds=part.lease_seconds, owner=part.owner, tell=tell)
    for left in reversed(range(part.retries + 1)):
        try:
            tell({"published": _ensure(part, place)})
            return
        except InputError as error:  # would fail again
            tell({"failed": str(error)})
            return
        except (StepFailed, StoreError) as error:
            if left:
                place.say(f"{part.planned.title} is tried again, {left} times at most: {error}")
            else:
                tell({"failed": str(error)})


def _ensure(part: Part, place: Place) -> str:
    parent = None
    if part.planned.parent:
        parent = find_record(part.store, part.planned.parent)
        if parent is None:
            raise InputError(
                f"the record of its parent {part.planned.parent} is gone from {part.store.uri}: run the campaign again"
            )
    record = ensure_step(part.planned, part.plan, place, parent)
    for source, scoring in part.scorings:
        ensure_evaluation(record, source, scoring, place)
    return record.attempt
