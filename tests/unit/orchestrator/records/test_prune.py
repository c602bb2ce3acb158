"""Pruning removes leftovers only.

It never removes what a record names, what a worker may be writing, or what the next attempt resumes
from.
"""

import os
import time
from datetime import timedelta

import pytest

from orchestrator.records import layout
from orchestrator.records.attempts import newest_checkpoint
from orchestrator.records.prune import delete, leftovers
from orchestrator.store.base import Store
from orchestrator.store.lease import Lease
from stepchain.presets import digits_wilson

DAY = 24 * 3600
UNPUBLISHED = "0123456789abcdef"  # a step


def write(store: Store, key: str, days: float = 2, data: bytes = b"1234") -> None:
    """Write an object as if some days ago."""
    store.write(key, data)
    path = store.local_path(key)
    assert path is not None
    then = time.time() - days * DAY
    os.utime(path, (then, then))


def attempt(
    store: Store, step: str, name: str, days: float = 2, checkpoint: int | None = None
) -> str:
    folder = f"{layout.attempt_folder(step, name)}/"
    write(store, f"{folder}progress.json", days)
    if checkpoint is not None:
        write(store, f"{folder}checkpoints/{checkpoint:08d}/state.safetensors", days, b"0" * 1000)
        write(store, f"{folder}checkpoints/{checkpoint:08d}/done.json", days, b"{}")
    return folder


def found(store: Store, **options: object) -> list[str]:
    return [leftover.folder for leftover in leftovers(store, **options)]  # pyright: ignore[reportArgumentType]


@pytest.fixture
def plan(planned):
    return planned(digits_wilson())


@pytest.fixture
def published(store, plan, publish_step) -> str:
    """Return the key of a step that is published, by its attempt a1."""
    record = publish_step(store, plan, plan.steps[0])
    attempt(store, record.key, "a1")
    return record.key


def test_an_attempt_that_came_second_goes_with_all_it_holds(store, published):
    second = attempt(store, published, "a0", checkpoint=5)
    (leftover,) = leftovers(store)
    assert leftover[:2] == (second, published)
    assert (leftover.objects, leftover.bytes) == (3, 4 + 1000 + 2)
    assert delete(store, [leftover]) == [leftover]
    assert list(store.list(second)) == []
    assert store.exists(f"{layout.attempt_folder(published, 'a1')}/progress.json")
    assert leftovers(store) == ()


def test_checkpoints_of_the_published_attempt_go_and_nothing_else_of_it(store, published):
    folder = attempt(store, published, "a1", checkpoint=5)
    assert found(store) == [f"{folder}checkpoints/"]
    delete(store, leftovers(store))
    assert list(store.list(folder)) == [f"{folder}progress.json"]


def test_an_attempt_that_a_later_step_was_trained_from_stays(store, plan, published, publish_step):
    attempt(store, published, "a0")
    attempt(store, published, "a2")
    child = publish_step(store, plan, plan.steps[1], parent_attempt="a0")
    attempt(store, child.key, "a1")
    assert found(store) == [f"{layout.attempt_folder(published, 'a2')}/"]
    assert found(store, steps={child.key}) == []


@pytest.mark.parametrize("state", ["published", "unpublished"])
def test_nothing_goes_while_a_worker_holds_the_lease(store, published, state):
    step = published if state == "published" else UNPUBLISHED
    attempt(store, step, "a0", days=30)
    lease = Lease(store, layout.step_lease(step), "ada@node")
    assert lease.acquire()
    assert found(store) == []
    write(store, lease.key, days=2)  # no heartbeat since
    assert found(store) == [f"{layout.attempt_folder(step, 'a0')}/"]


def test_what_was_written_within_the_grace_period_stays(store, published):
    folder = attempt(store, published, "a0", days=0.5)
    assert found(store) == []
    assert found(store, grace=timedelta(hours=6)) == [folder]
    attempt(store, published, "a2", days=2)
    write(store, f"{layout.attempt_folder(published, 'a2')}/curves/00000010.json", days=0.5)
    assert found(store) == [], "one young object keeps its attempt"


def test_what_the_next_attempt_goes_on_from_stays_unless_asked_for(store):
    first, second, third = (
        attempt(store, UNPUBLISHED, f"a{number}", checkpoint=at)
        for number, at in enumerate((5, 20, 10))
    )
    assert found(store) == [first, third]
    delete(store, leftovers(store))
    checkpoint = newest_checkpoint(store, UNPUBLISHED)
    assert checkpoint is not None
    assert (checkpoint.attempt, checkpoint.iteration) == ("a1", 20)
    assert found(store) == []
    assert found(store, unfinished=True) == [second]


def test_a_step_that_began_since_the_listing_is_left_alone(store, published):
    attempt(store, published, "a0")
    listed = leftovers(store)
    assert len(listed) == 1
    assert Lease(store, layout.step_lease(published), "ada@node").acquire()
    assert delete(store, listed) == []
    assert store.exists(f"{listed[0].folder}progress.json")


def test_only_the_steps_asked_for(store, published):
    attempt(store, published, "a0")
    other = attempt(store, UNPUBLISHED, "a0")
    assert found(store, steps=[UNPUBLISHED]) == [other]


def test_the_request_of_a_step_stays_when_its_attempts_go(store):
    request = layout.step_request(UNPUBLISHED)
    write(store, request, days=30)
    folder = attempt(store, UNPUBLISHED, "a0", days=30)
    assert found(store) == [folder]
    delete(store, leftovers(store))
    assert list(store.list()) == [request]
    assert found(store, unfinished=True) == []
