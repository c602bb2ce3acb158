"""The order in which steps are handed out, checked against the definition on random trees."""

import random

import pytest

from orchestrator.campaigns.priority import Job, Schedule, expected_seconds

TREE = [
    Job("a", None, 1),
    Job("b", "a", 1),
    Job("c", "a", 5),
    Job("d", "b", 2),
    Job("e", "b", 6),
    Job("f", None, 2),
]


def test_the_longest_remaining_path_comes_first():
    schedule = Schedule(TREE)
    assert schedule.remaining == {"a": 8, "b": 7, "c": 5, "d": 2, "e": 6, "f": 2}
    assert list(schedule.ready()) == ["a", "f"]
    schedule.start("a")
    schedule.finish("a")
    assert list(schedule.ready()) == ["b", "c", "f"]
    schedule.start("b")
    schedule.finish("b")
    assert list(schedule.ready()) == ["e", "c", "d", "f"]  # d before f: alike, and given first


def test_a_failure_takes_its_subtree_and_nothing_else():
    schedule = Schedule(TREE)
    for id in ("a", "f"):
        schedule.start(id)
    schedule.finish("a")
    schedule.start("b")
    assert schedule.drop("b") == ["d", "e"]
    assert list(schedule.ready()) == ["c"]
    schedule.start("c")
    schedule.finish("c")
    assert not schedule.finished
    schedule.finish("f")
    assert schedule.finished
    assert schedule.done == {"a", "c", "f"}


def test_what_is_not_handed_out_can_be_dropped():
    schedule = Schedule(TREE)
    assert schedule.drop("a") == ["b", "c", "d", "e"]
    assert list(schedule.ready()) == ["f"]
    schedule.drop("f")
    assert schedule.finished


def test_what_was_dropped_below_does_not_come_back():
    schedule = Schedule(TREE)
    schedule.drop("c")
    schedule.start("a")
    schedule.finish("a")
    assert list(schedule.ready()) == ["b", "f"]


@pytest.mark.parametrize(
    ("jobs", "reason"),
    [
        ([Job("a", None, 1), Job("a", None, 1)], "twice"),
        ([Job("a", "b", 1)], "no job of this schedule"),
        ([Job("a", "b", 1), Job("b", "a", 1)], "wait for each other"),
    ],
)
def test_what_is_no_tree_is_refused(jobs, reason):
    with pytest.raises(ValueError, match=reason):
        Schedule(jobs)


def test_only_what_is_ready_can_start():
    with pytest.raises(ValueError, match="not ready"):
        Schedule(TREE).start("b")


def test_expected_seconds():
    assert expected_seconds(Schedule(TREE), 100) == 8  # the longest path
    assert expected_seconds(Schedule(TREE), 1) == 17  # all of it
    assert expected_seconds(Schedule(TREE), 2) == 9  # a; then b e, and c d f beside it
    assert expected_seconds(Schedule([]), 1) == 0


@pytest.mark.parametrize("seed", range(20))
def test_random_trees_end_near_the_bound_and_leave_no_machine_idle(seed):
    draw = random.Random(seed)
    jobs = [
        Job(
            str(n),
            str(draw.randrange(n)) if n and draw.random() < 0.9 else None,
            draw.uniform(1, 9),
        )
        for n in range(60)
    ]
    machines = draw.randint(1, 8)
    work = sum(job.seconds for job in jobs)
    path = max(Schedule(jobs).remaining.values())
    # Graham's bound holds for every schedule that leaves no machine idle while something is ready.
    found = expected_seconds(Schedule(jobs), machines)
    assert max(path, work / machines) - 1e-9 <= found <= work / machines + path
