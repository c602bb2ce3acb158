"""What fits on machines is what Ray can place there."""

import pytest

from orchestrator.cluster.packing import (
    HEAD,
    Growth,
    Machines,
    NodeType,
    hold_at_once,
    steps_on,
    workers_on,
)
from orchestrator.cluster.resources import Resources


def given(gpus: float = 0, cpus: int = 1, **fields: object) -> Resources:
    start = {"workers": 1, "loader_workers": 0, "checkpoint_every": 60}
    return Resources.model_validate(
        start | {"cpus_per_worker": cpus, "gpus_per_worker": gpus} | fields
    )


@pytest.mark.parametrize(
    ("resources", "node", "expected"),
    [
        (given(0.1), {"CPU": 16.0, "GPU": 1.0}, 10),  # 1 // 0.1 is 9
        (given(0.4), {"CPU": 16.0, "GPU": 2.0}, 4),  # no worker gets 0.2 of two GPUs
        (given(1, 8), {"CPU": 12.0, "GPU": 2.0}, 1),
        (given(1), {"CPU": 12.0}, 0),
        (given(memory_per_worker=4), {"CPU": 8.0, "memory": 10e9}, 2),
        (given(memory_per_worker=4), {"CPU": 8.0}, 8),  # that can be added, of unknown memory
        (given(1, accelerator="A100"), {"CPU": 8.0, "GPU": 2.0}, 0),
        (
            given(1, accelerator="A100"),
            {"CPU": 8.0, "GPU": 2.0, "accelerator_type:A100": 1.0},
            2,
        ),
        (given(custom_resources=("fast_disk=2",)), {"CPU": 8.0, "fast_disk": 5.0}, 2),
    ],
)
def test_workers_on_a_machine(resources: Resources, node: dict[str, float], expected: int) -> None:
    assert workers_on(resources, node) == expected


@pytest.mark.parametrize(
    ("placement", "expected"),
    # Machines for 3, 3 and 1 workers, and steps of two workers.
    [("PACK", 3), ("SPREAD", 3), ("STRICT_PACK", 2), ("STRICT_SPREAD", 3)],
)
def test_steps_with_two_workers(placement: str, expected: int) -> None:
    resources = given(workers=2, placement=placement)
    assert steps_on(resources, [{"CPU": 3.0}, {"CPU": 3.0}, {"CPU": 1.0}]) == expected


def test_workers_apart_need_as_many_machines() -> None:
    apart = given(workers=2, placement="STRICT_SPREAD")
    assert steps_on(apart, [{"CPU": 8.0}]) == 0
    assert steps_on(apart, [{"CPU": 8.0}, {"CPU": 1.0}]) == 1
    assert not hold_at_once([apart, apart], [{"CPU": 8.0}, {"CPU": 1.0}], 2)
    assert hold_at_once([apart, apart], [{"CPU": 8.0}, {"CPU": 1.0}, {"CPU": 1.0}], 3)
    assert hold_at_once([given(workers=2, placement="SPREAD")], [{"CPU": 8.0}], 1)
    together = given(workers=2, placement="STRICT_PACK")
    assert not hold_at_once([together], [{"CPU": 1.0}, {"CPU": 1.0}], 2)


def test_large_steps_are_placed_first_and_fractions_fill_one_gpu() -> None:
    machine = {"CPU": 16.0, "GPU": 2.0}
    small, whole = given(0.5), given(1)
    assert hold_at_once([small, small, whole], [machine], 1)
    assert not hold_at_once([small, small, small, whole], [machine], 1)
    assert hold_at_once([given(0.4), given(0.6), whole], [machine], 1)
    assert not hold_at_once([given(0.4)] * 3 + [whole], [machine], 1)


def test_no_more_machines_are_used_than_may_be_added() -> None:
    kinds = [{"CPU": 1.0}] * 3
    assert hold_at_once([given()] * 2, kinds, 2)
    assert not hold_at_once([given()] * 3, kinds, 2)


def test_the_head_counts_besides_what_is_added() -> None:
    like_the_head = {"CPU": 8.0, "GPU": 1.0}
    growth = Growth((NodeType("gpu", like_the_head, 1),), 1)
    machines = Machines((like_the_head | {HEAD: 1.0},), growth)
    two = given(1, workers=2)
    assert (machines.room(two), machines.steps(two), machines.hold([two])) == (2, 1, True)
    assert not machines.hold([two, given(1)])
    # A worker that was added is one of those that may be.
    grown = Machines((*machines.living, like_the_head), growth)
    assert (grown.room(two), grown.hold([two, given(1)])) == (2, False)


def test_a_head_that_trains_nothing_takes_no_place_of_what_is_added() -> None:
    growth = Growth((NodeType("gpu", {"CPU": 8.0, "GPU": 1.0}, 2),), 2)
    machines = Machines(({"CPU": 0.0, HEAD: 1.0},), growth)
    assert machines.hold([given(1)] * 2)
    assert not machines.hold([given(1)] * 3)


def test_machines_that_the_autoscaler_did_not_add_hold_steps_beside_those_it_adds() -> None:
    growth = Growth((NodeType("gpu", {"CPU": 8.0, "GPU": 1.0}, 2),), 2)
    with_disk = {"CPU": 16.0, "fast_disk": 1.0, "memory": 64e9}
    machines = Machines(({"CPU": 0.0, HEAD: 1.0}, with_disk), growth)
    base = given(0, 8, custom_resources=("fast_disk=1",))
    assert machines.hold([base, given(1), given(1)])
    assert not machines.hold([base, *[given(1)] * 3])
    assert machines.room(given(0, 4)) == 8
    # One that it added has more resources than its kind names, and is none of those.
    added = {"CPU": 8.0, "GPU": 1.0, "memory": 30e9, "accelerator_type:A100": 1.0}
    grown = Machines((*machines.living, added), growth)
    assert not grown.hold([base, *[given(1)] * 3])
