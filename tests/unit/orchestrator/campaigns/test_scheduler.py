"""Test which step a scheduler starts beside another campaign, and what it makes of messages.

The tree and the store are made up: many steps that are ready at once, and leases of others.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.campaigns import choice
from orchestrator.campaigns.events import Event
from orchestrator.campaigns.limits import Limits
from orchestrator.campaigns.room import Room, RoomWait
from orchestrator.campaigns.scheduler import Scheduler
from orchestrator.cluster.packing import Machines
from orchestrator.cluster.resources import Resources
from orchestrator.execution.messages import (
    AttemptStarted,
    Notice,
    StepPublished,
    TrialFailed,
    WaitingForLease,
    WaitingForWorkers,
    WorkersStarted,
)
from orchestrator.planning.step_tree import StepTree
from orchestrator.planning.store_state import StepState, StoredStep
from training.config import InputError

ONE_CPU = Resources(
    workers=1, cpus_per_worker=1, gpus_per_worker=0, loader_workers=0, checkpoint_every=60
)


class World:
    """A campaign of steps without parents, and the steps of it that others train."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.leased: set[str] = set()
        self.looks = 0
        self.events: list[Event] = []
        self.now = 0.0
        monkeypatch.setattr(choice, "look_up_step", self.look_up)

    def look_up(self, node: Any, repository: Any) -> StoredStep:
        self.looks += 1
        state = StepState.RUNNING if node.key in self.leased else StepState.TO_TRAIN
        return StoredStep(state)

    def scheduler(
        self, steps: int, cpus: int, growth: Callable[..., Any] | None = None
    ) -> Scheduler:
        optimization = SimpleNamespace(batch=1)
        nodes: dict[str, Any] = {}
        for number in range(steps):
            planned = SimpleNamespace(
                index=1,
                title=f"step {number}",
                iterations=1,
                step=SimpleNamespace(optimization=optimization),
            )
            key = f"k{number:03}"
            nodes[key] = SimpleNamespace(
                key=key, planned=planned, parent=None, children=(), chains=(number,), plan=None
            )
        chains: Any = tuple(SimpleNamespace(steps=[]) for _ in nodes)
        room = Room(lambda: Machines(({"CPU": float(cpus)},)), {"increment": ONE_CPU})
        costs: Any = SimpleNamespace(
            seconds=lambda planned: 100.0, overhead=1, gpu_hours=lambda seconds, kind: 0
        )
        repository: Any = SimpleNamespace(
            store=None, in_parallel=lambda read, items: [read(item) for item in items]
        )
        return Scheduler(
            StepTree(chains, nodes),
            dict.fromkeys(nodes, StoredStep(StepState.TO_TRAIN)),
            repository,
            costs,
            Limits(),
            room=RoomWait(room, 10, pytest.fail, lambda: self.now),
            owner="ours",
            on_event=self.events.append,
            growth=growth,
            clock=lambda: self.now,
        )

    def with_one_step(self) -> tuple[Scheduler, str]:
        """Return a scheduler of one step, which runs, and the step's key."""
        scheduler = self.scheduler(steps=1, cpus=1)
        key = scheduler.next()
        assert key
        return scheduler, key


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_a_small_campaign_beside_a_large_one_trains_what_is_free(world: World):
    world.leased = {f"k{number:03}" for number in range(32)}
    scheduler = world.scheduler(steps=200, cpus=2)
    assert [scheduler.next() for _ in range(3)] == ["k032", "k033", None]
    for key in ("k032", "k033"):
        scheduler.on_message(key, StepPublished("a"))
        scheduler.on_end(key)
    assert [scheduler.next(), scheduler.next()] == ["k034", "k035"]


def test_when_all_is_leased_as_many_wait_as_could_train(world: World):
    world.leased = {f"k{number:03}" for number in range(20)}
    scheduler = world.scheduler(steps=20, cpus=2)
    assert [scheduler.next() for _ in range(4)] == ["k000", "k001", None, None]
    for key in ("k000", "k001"):
        scheduler.on_message(key, WaitingForLease("theirs"))
    # What becomes free finds a place beside those that wait.
    world.leased.remove("k019")
    world.now = 60.0
    assert [scheduler.next() for _ in range(2)] == ["k019", None]


def test_very_many_leased_steps_are_not_looked_up_again_at_once(world: World):
    world.leased = {f"k{number:03}" for number in range(400)}
    scheduler = world.scheduler(steps=400, cpus=1)
    scheduler.next()
    assert world.looks == 400
    world.now = 20.0
    scheduler.next()
    assert world.looks <= 401
    scheduler.on_end("k000", lost="gone")
    world.now = 60.0
    scheduler.next()
    assert world.looks > 700


def test_a_step_that_is_tried_again_pays_nothing_while_it_waits_for_room(world: World):
    scheduler, key = world.with_one_step()
    scheduler.on_message(key, AttemptStarted("first"))
    scheduler.on_message(key, WorkersStarted())
    world.now = 10.0
    scheduler.on_message(key, WaitingForWorkers())  # the first attempt failed
    world.now = 1000.0
    scheduler.on_message(key, AttemptStarted("second"))
    scheduler.on_message(key, WorkersStarted())
    assert scheduler.budget.elapsed(key) == 0
    world.now = 1005.0
    assert scheduler.budget.elapsed(key) == 5
    spent = scheduler.budget.spent
    scheduler.budget.end(key)
    assert scheduler.budget.spent == pytest.approx(1.5 * spent)


def test_a_trial_that_waits_for_workers_waits_for_no_lease(world: World):
    world.leased = {"k000"}
    scheduler = world.scheduler(steps=3, cpus=1)
    assert scheduler.next() == "k001"
    scheduler.on_message("k001", WaitingForLease("theirs"))
    assert scheduler.next() == "k002"
    scheduler.on_message("k002", StepPublished("a"))
    scheduler.on_message("k001", WaitingForWorkers())  # the lease is free
    scheduler.on_end("k002")
    assert scheduler.next() is None


def test_a_step_whose_process_is_lost_after_it_was_published_is_published(world: World):
    scheduler, key = world.with_one_step()
    scheduler.on_message(key, AttemptStarted("first"))
    scheduler.on_message(key, TrialFailed("of a process that is then lost"))
    scheduler.on_message(key, AttemptStarted("second"))
    scheduler.on_message(key, StepPublished("second"))
    scheduler.on_end(key, lost="the machine is gone")
    assert scheduler.outcomes[key].state == StepState.PUBLISHED


def test_a_loss_is_not_told_with_the_failure_of_an_earlier_process(world: World):
    scheduler, key = world.with_one_step()
    scheduler.on_message(key, TrialFailed("of a process that is then lost"))
    scheduler.on_message(key, AttemptStarted("second"))
    scheduler.on_end(key, lost="the machine is gone")
    assert scheduler.outcomes[key].state == StepState.FAILED
    assert scheduler.outcomes[key].reason.endswith("the machine is gone")


def test_a_searcher_that_fails_ends_the_search_and_no_running_step(world: World):
    class Search:
        possible = True

        def grow(self) -> None:
            raise InputError("the searcher fails: singular matrix")

    scheduler = world.scheduler(steps=1, cpus=2, growth=lambda outcomes: Search())
    key = scheduler.next()
    assert key
    assert scheduler.next() is None
    assert not scheduler.finished
    (notice,) = (event for event in world.events if isinstance(event, Notice))
    assert "names no more samples: the searcher fails" in notice.text
    scheduler.on_message(key, StepPublished("a"))
    scheduler.on_end(key)
    assert scheduler.finished
    assert scheduler.problems == ["the searcher fails: singular matrix"]
    alone = world.scheduler(steps=0, cpus=2, growth=lambda outcomes: Search())
    with pytest.raises(InputError):
        alone.next()
