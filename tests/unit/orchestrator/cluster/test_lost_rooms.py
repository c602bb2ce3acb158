"""Which placement groups count as rooms of lost processes, by rows as Ray's table has them."""

from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray._private.state import state
from ray.core.generated import gcs_pb2

from orchestrator.cluster.lost_rooms import give_lost_rooms_back

OURS = ray.JobID.from_int(7)
CREATOR = ray.ActorID.of(OURS, ray.TaskID.for_driver_task(OURS), 1)
Row: Any = gcs_pb2.PlacementGroupTableData  # pyright: ignore[reportAttributeAccessIssue]


def row(**changes: Any) -> bytes:
    """Return the row of a room whose creator, an actor of our job, is dead."""
    fields = {
        "placement_group_id": ray.PlacementGroupID.from_random().binary(),
        "state": Row.PENDING,
        "creator_job_id": OURS.binary(),
        "creator_actor_id": CREATOR.binary(),
        "creator_actor_dead": True,
    }
    return Row(**(fields | changes)).SerializeToString()


ENDED = ray.ActorID.of(OURS, ray.TaskID.for_driver_task(OURS), 2)


@pytest.mark.parametrize(
    ("changes", "lost"),
    [
        ({}, 1),
        ({"state": Row.CREATED}, 1),
        ({"state": Row.RESCHEDULING}, 1),
        ({"state": Row.REMOVED}, 0),
        ({"creator_actor_dead": False}, 0),
        ({"creator_actor_dead": False, "creator_actor_id": ENDED.binary()}, 1),
        ({"creator_actor_id": ray.ActorID.nil().binary()}, 0),
        ({"creator_job_id": ray.JobID.from_int(8).binary()}, 0),
        ({"is_detached": True}, 0),
    ],
)
def test_rooms_of_lost_processes_of_this_job_are_removed(
    changes: dict[str, Any], lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = [row(**changes)]
    accessor = SimpleNamespace(get_placement_group_table=lambda: table)
    here = SimpleNamespace(get_job_id=OURS.hex)
    removed: list[bytes] = []
    monkeypatch.setattr(state, "_connect_and_get_accessor", lambda: accessor)
    states = {CREATOR.hex(): "ALIVE", ENDED.hex(): "DEAD"}
    monkeypatch.setattr(state, "actor_table", lambda actor: {"State": states[actor]})
    monkeypatch.setattr(ray, "get_runtime_context", lambda: here)
    monkeypatch.setattr(
        "ray.util.remove_placement_group", lambda room: removed.append(room.id.binary())
    )
    assert give_lost_rooms_back() == lost
    assert removed == [Row.FromString(each).placement_group_id for each in table[:lost]]
