"""Choose the next step of a campaign: by urgency, budget, room, and what the store says."""

from collections import Counter
from collections.abc import Callable, Collection

from orchestrator.campaigns.limits import Budget
from orchestrator.campaigns.priority import Schedule
from orchestrator.campaigns.room import Room
from orchestrator.cluster.give import Kind, step_kind
from orchestrator.planning.step_tree import StepTree
from orchestrator.planning.store_state import StepState, look_up_step
from orchestrator.records.repository import Repository
from orchestrator.store.base import StoreError

# Ready steps of a kind that are looked up before one that another campaign trains is chosen, or
# before the kind is passed over because it does not fit.
CANDIDATES = 8


class Choice:
    """Chooses among the ready steps.

    Attributes:
        crowded: Whether the last choice passed over a step for want of room.
    """

    def __init__(
        self,
        tree: StepTree,
        repository: Repository,
        schedule: Schedule,
        budget: Budget,
        room: Room,
        look_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        """Choose nothing yet. The arguments are those of the scheduler, and its schedule."""
        self.crowded = False
        self._tree = tree
        self._repository = repository
        self._schedule = schedule
        self._budget = budget
        self._room = room
        self._look_seconds = look_seconds
        self._clock = clock
        self._looked_up: dict[str, tuple[float, StepState]] = {}  # when, and the state

    def next(self, waiting: Collection[str]) -> str | None:
        """Return the most urgent affordable step that fits.

        One that another campaign publishes or trains needs no room; the latter comes last.

        Args:
            waiting: Running steps that wait for the lease of another campaign.
        """
        running = self._schedule.running
        working = (key for key in running if key not in waiting)
        busy: Counter[Kind] = Counter(step_kind_of(key, self._tree) for key in working)
        candidates: list[str] = []
        passed: Counter[Kind] = Counter()
        for key in self._schedule.ready():
            kind = step_kind_of(key, self._tree)
            if len(candidates) == CANDIDATES:
                break
            if passed[kind] == CANDIDATES or not self._budget.affords(key, running):
                continue
            state = self.state(key)
            if state == StepState.RUNNING:
                candidates.append(key)
            elif state == StepState.PUBLISHED or self._room.holds({**busy, kind: busy[kind] + 1}):
                return key
            else:
                passed[kind] += 1
        self.crowded = bool(passed)
        return candidates[0] if candidates else None

    def state(self, key: str) -> StepState:
        """Return the state of a ready step in the store. It may be a few seconds old."""
        now = self._clock()
        if key not in self._looked_up or now - self._looked_up[key][0] > self._look_seconds:
            try:
                state = look_up_step(self._tree.nodes[key], self._repository).state
            except StoreError:
                # The trial will try again, and report the store's error.
                return StepState.TO_TRAIN
            self._looked_up[key] = now, state
        return self._looked_up[key][1]


def step_kind_of(key: str, tree: StepTree) -> Kind:
    """Return the kind of a step of the tree."""
    return step_kind(tree.nodes[key].planned.index)
