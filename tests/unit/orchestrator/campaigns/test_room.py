"""A campaign follows a cluster that grows and shrinks, and waits for a machine that left."""

from collections import Counter

import pytest

from orchestrator.campaigns.room import Room, RoomWait
from orchestrator.cluster.give import Kind
from orchestrator.cluster.packing import Growth, Machines, NodeType
from orchestrator.cluster.resources import Resources

GPU = {"CPU": 8.0, "GPU": 1.0}


def given(gpus: float, cpus: int = 1) -> Resources:
    return Resources(
        workers=1,
        cpus_per_worker=cpus,
        gpus_per_worker=gpus,
        loader_workers=0,
        checkpoint_every=60,
    )


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_it_looks_again_after_a_while() -> None:
    clock, nodes = Clock(), [GPU]
    room = Room(lambda: Machines(tuple(nodes)), {"base": given(1)}, None, 5, clock)
    nodes += [GPU] * 7
    clock.now = 5.0
    assert room.at_once() == 1
    assert not room.holds({"base": 2})
    clock.now = 5.1
    assert room.at_once() == 8
    assert room.holds({"base": 8})
    nodes.clear()
    clock.now = 20.0
    assert room.at_once() == 1
    assert not room.holds({"base": 1})


def test_steps_of_two_kinds_share_gpus() -> None:
    resources: dict[Kind, Resources] = {"base": given(1), "increment": given(0.25)}
    room = Room(lambda: Machines((GPU, GPU)), resources)
    assert room.at_once() == 8
    assert room.holds({"base": 1, "increment": 4})
    assert not room.holds({"base": 1, "increment": 5})
    assert not room.holds({"base": 2, "increment": 1})
    limited = Room(lambda: Machines((GPU, GPU)), resources, most=3)
    assert limited.at_once() == 3
    assert limited.holds({"increment": 3})
    assert not limited.holds({"increment": 4})


@pytest.mark.parametrize(
    ("growth", "holds"), [(Growth((), 0), False), (Growth((), 0, known=False), True)]
)
def test_one_step_fits_where_machines_may_come_unseen(growth: Growth, holds: bool) -> None:
    room = Room(lambda: Machines(({"CPU": 0.0},), growth), {"base": given(1)})
    assert room.holds({"base": 1}) == holds
    assert not room.holds({"base": 2})


def test_what_can_be_added_holds_both_kinds() -> None:
    spot = NodeType("spot", GPU, 4)
    resources: dict[Kind, Resources] = {"base": given(1), "increment": given(0.5)}
    room = Room(lambda: Machines(({"CPU": 0.0},), Growth((spot,), 3)), resources)
    assert room.holds({"base": 2, "increment": 2})
    assert not room.holds({"base": 2, "increment": 3})


def test_it_waits_for_a_machine_and_says_so_once() -> None:
    clock, told = Clock(), []
    room = Room(lambda: Machines(()), {"base": given(1, 8), "increment": given(0)})
    wait = RoomWait(room, 600, told.append, clock)
    ready: Counter[Kind] = Counter(["base"])
    assert wait.reason_to_give_up(ready) is None
    clock.now = 599
    assert wait.reason_to_give_up(ready) is None
    needed = "no machine of the cluster has room for base steps (1 worker with 1 GPU and 8 CPUs)"
    assert told == [f"{needed}: waiting up to 10 minutes for a machine to come back"]
    wait.end()
    assert told[1] == "a machine is back: the campaign goes on"
    wait.end()
    clock.now = 1000
    assert wait.reason_to_give_up(ready) is None
    clock.now = 1600
    assert wait.reason_to_give_up(ready) == f"{needed}, and none came back in 10 minutes"
    assert len(told) == 3
