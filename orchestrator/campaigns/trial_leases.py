"""Take and release the leases that a run's own trials hold."""

import logging
from collections.abc import Iterable

from orchestrator.records import layout
from orchestrator.store.base import Store, StoreError
from orchestrator.store.lease import Lease, read_lease

log = logging.getLogger(__name__)


def seize_leases(store: Store, steps: Iterable[str], owner: str) -> set[str]:
    """Take the leases of steps, so that workers write checkpoints and exit, and no trial begins.

    Return the steps whose leases `owner` held. The others train nothing now: a trial of `owner`
    still waits for room, or another job trains the step and goes on.
    """
    seized = set()
    for key in steps:
        lease = Lease(store, layout.step_lease(key), owner)
        try:
            if not lease.acquire() and lease.holder and lease.holder.owner == owner:
                lease.seize(lease.holder.token)
                seized.add(key)
        except StoreError as error:
            log.warning("step %s is stopped without a checkpoint: %s", key, error)
    return seized


def release_leases(store: Store, steps: Iterable[str], owner: str) -> None:
    """Delete the leases of steps that `owner` holds."""
    for key in steps:
        name = layout.step_lease(key)
        try:
            lease = read_lease(store, name)
            if lease and lease.owner == owner:
                store.delete(name)
        except StoreError as error:
            # The lease will run out by itself.
            log.warning("could not release the lease of step %s: %s", key, error)
