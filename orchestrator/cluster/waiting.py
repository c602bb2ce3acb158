"""Watch workers that have not started: whether they wait for room, for how long, and who is told.

Importing Ray takes a second, so the functions import it when they are called.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.cluster.lost_rooms import give_lost_rooms_back
from orchestrator.cluster.resource_words import shares
from orchestrator.cluster.resources import Resources
from orchestrator.store.retries import Retries

log = logging.getLogger(__name__)


def waits_for_room(resources: Resources) -> bool:
    """Return whether Ray has found no room yet for some workers with these resources."""
    from ray.util import placement_group_table

    wanted = [resources.bundle.get(name, 0.0) for name in ("CPU", "GPU")] * resources.workers
    for group in placement_group_table().values():
        bundles = group["bundles"].values()
        asked = [bundle.get(name, 0.0) for bundle in bundles for name in ("CPU", "GPU")]
        if group["state"] == "PENDING" and asked == wanted:
            return True
    return False


@dataclass
class Waiting:
    """What happens until workers start.

    Attributes:
        tell: Shows a sentence about machines or room that are waited for.
        check: Called now and then. It raises when nobody wants the workers any more.
        started: Called when the workers have started.
        seconds: How long there was no room.
    """

    tell: Callable[[str], None] = log.warning
    check: Callable[[], None] = lambda: None
    started: Callable[[], None] = lambda: None
    seconds: float = 0.0
    _asked: float = 0.0  # time.monotonic() of the last look for room
    _told: bool = False

    def begin(self) -> None:
        """Note that room is asked for from now on."""
        self._asked = time.monotonic()

    def look(self, resources: Resources, retries: Retries) -> None:
        """Look whether the workers wait for room, and say so once. Call it until they start."""
        self.check()
        now = time.monotonic()
        if now - self._asked < retries.room_look_seconds:
            return
        passed, self._asked = now - self._asked, now
        give_lost_rooms_back()
        if not waits_for_room(resources):
            return
        self.seconds += passed
        if self.seconds >= retries.full_seconds and not self._told:
            self._told = True
            workers = f"{resources.workers} workers with {shares(resources)} each"
            if resources.workers == 1:
                workers = f"a worker with {shares(resources)}"
            self.tell(
                f"no room is free for {workers}: waiting until other work ends or a machine comes"
            )
