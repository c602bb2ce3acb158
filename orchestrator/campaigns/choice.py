"""Choose the next step of a campaign: by urgency, budget, room, and what the store says."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice

from orchestrator.campaigns.limits import Budget
from orchestrator.campaigns.priority import Schedule
from orchestrator.campaigns.room import Room
from orchestrator.cluster.give import Kind, step_kind
from orchestrator.planning.step_tree import StepTree
from orchestrator.planning.store_state import StepState, look_up_step
from orchestrator.records.repository import Repository
from orchestrator.store.base import READERS, StoreError

# Ready steps of a kind that are looked up before the kind is passed over because it does not fit.
CANDIDATES = 8
# Leased steps that are looked at again each second, when others lease very many.
LOOKS_PER_SECOND = 10


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
        self._leased = 0  # ready steps that others trained at the last choice

    def next(self, waiting: Collection[str]) -> str | None:
        """Return the most urgent affordable step that fits.

        One that another campaign publishes or trains needs no room; the latter comes last.

        Args:
            waiting: Running steps that wait for the lease of another campaign.
        """
        running = self._schedule.running
        working = (key for key in running if key not in waiting)
        busy: Counter[Kind] = Counter(step_kind_of(key, self._tree) for key in working)
        leased: list[str] = []
        passed: Counter[Kind] = Counter()
        ready = (
            key
            for key in self._schedule.ready()
            if passed[step_kind_of(key, self._tree)] < CANDIDATES
            and self._budget.affords(key, running)
        )
        for key in self._looked(ready):
            kind = step_kind_of(key, self._tree)
            state = self.state(key)
            if state == StepState.RUNNING:
                leased.append(key)
            elif state == StepState.PUBLISHED or self._room.holds({**busy, kind: busy[kind] + 1}):
                return key
            else:
                passed[kind] += 1
        self.crowded = bool(passed)
        self._leased = len(leased)
        return leased[0] if leased else None

    def state(self, key: str) -> StepState:
        """Return the state of a ready step in the store. It may be a few seconds old."""
        if not self._is_known(key):
            self._look_up(key)
        # Where the store failed, the trial will try again, and report its error.
        return self._looked_up[key][1] if key in self._looked_up else StepState.TO_TRAIN

    def _looked(self, keys: Iterable[str]) -> Iterator[str]:
        """Yield the keys, looked up: the first alone, as it is mostly free, then many at once."""
        left = iter(keys)
        yield from islice(left, 1)
        while block := list(islice(left, READERS)):
            if unknown := [key for key in block if not self._is_known(key)]:
                self._repository.in_parallel(self._look_up, unknown)
            yield from block

    def _is_known(self, key: str) -> bool:
        """Return whether what was found of a step still counts."""
        if key not in self._looked_up:
            return False
        when, state = self._looked_up[key]
        counts = self._look_seconds
        if state == StepState.RUNNING:
            counts = max(counts, self._leased / LOOKS_PER_SECOND)
        return self._clock() - when <= counts

    def _look_up(self, key: str) -> None:
        try:
            state = look_up_step(self._tree.nodes[key], self._repository).state
        except StoreError:
            self._looked_up.pop(key, None)
        else:
            self._looked_up[key] = self._clock(), state


def step_kind_of(key: str, tree: StepTree) -> Kind:
    """Return the kind of a step of the tree."""
    return step_kind(tree.nodes[key].planned.index)
