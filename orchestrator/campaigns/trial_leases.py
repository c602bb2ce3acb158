"""Take and release the leases that a run's own trials hold."""

import logging
from collections.abc import Iterable, Iterator

from orchestrator.records import layout
from orchestrator.store.base import Store, StoreError
from orchestrator.store.lease import Lease, read_lease

log = logging.getLogger(__name__)


def seize_leases(store: Store, steps: Iterable[str], owner: str) -> set[str]:
    """Take the leases of steps that `owner` holds, so that workers write checkpoints and exit.

    Return these steps. The others train nothing now.
    """
    seized = set()
    for key, token in _leased(store, steps, owner):
        try:
            Lease(store, layout.step_lease(key), owner).seize(token)
            seized.add(key)
        except StoreError as error:
            log.warning("step %s is stopped without a checkpoint: %s", key, error)
    return seized


def release_leases(store: Store, steps: Iterable[str], owner: str) -> None:
    """Delete the leases of steps that `owner` holds."""
    for key, _ in _leased(store, steps, owner):
        try:
            store.delete(layout.step_lease(key))
        except StoreError as error:
            # The lease will run out by itself.
            log.warning("could not release the lease of step %s: %s", key, error)


def _leased(store: Store, steps: Iterable[str], owner: str) -> Iterator[tuple[str, str]]:
    """Yield the steps whose leases `owner` holds, with the holder's token."""
    for key in steps:
        try:
            lease = read_lease(store, layout.step_lease(key))
        except StoreError as error:
            log.warning("could not read the lease of step %s: %s", key, error)
            continue
        if lease and lease.owner == owner:
            yield key, lease.token
