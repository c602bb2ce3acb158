"""Give back what lost processes of this job had reserved.

Workers run in a placement group, their room, which the controller of their Ray Train run creates.
Ray removes a room when both its controller and its job have ended. A campaign is one job, whose
trials start controllers, and a controller ends with its trial. So the room of a trial that is lost
would be held until the campaign ends: that of its workers, and one that it still waited for.

Ray Train starts a process beside each controller that watches it, needs a dashboard and misses a
room that is waited for. Ray's own table of rooms says more, and at once. No public function shows
the part of it that is read here; a test says when it changes.

Importing Ray takes a second, so the functions import it when they are called.
"""

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.util.placement_group import PlacementGroup

log = logging.getLogger(__name__)


def give_lost_rooms_back() -> int:
    """Remove the placement groups of this job whose creator is dead, and return their number.

    Several processes may do so at once.
    """
    from ray.util import remove_placement_group

    rooms = list(_lost_rooms())
    for room in rooms:
        log.info("giving back %s, whose process is lost", room.id)
        remove_placement_group(room)
    return len(rooms)


def _lost_rooms() -> "Iterator[PlacementGroup]":
    import ray
    from ray._private.state import state
    from ray.core.generated.gcs_pb2 import (
        PlacementGroupTableData as Row,  # pyright: ignore[reportAttributeAccessIssue]
    )
    from ray.util.placement_group import PlacementGroup

    job = ray.get_runtime_context().get_job_id()
    for data in state._connect_and_get_accessor().get_placement_group_table():
        group = Row.FromString(data)
        ours = group.creator_job_id.hex() == job and not group.is_detached
        there = group.state != Row.REMOVED
        creator = ray.ActorID(group.creator_actor_id)
        # Ray also calls the creator dead of what the driver itself created.
        if not (ours and there) or creator.is_nil():
            continue
        # A room that a controller asks for while it ends is not marked when it has ended.
        if group.creator_actor_dead or state.actor_table(creator.hex()).get("State") == "DEAD":
            yield PlacementGroup(ray.PlacementGroupID(group.placement_group_id))
