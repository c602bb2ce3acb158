"""Learn from a few lists what a far store holds, where asking for each object would take longer.

A server lists a thousand objects in one answer. A campaign of thousands of steps would otherwise
send several requests for each of them. What a list does not show may have been published since, so
whoever uses one asks the store for what it lacks. Records are always read themselves.
"""

from collections.abc import Iterable

from orchestrator.records import layout
from orchestrator.records.keys import shares
from orchestrator.records.repository import Repository
from orchestrator.store.base import Entry, is_local

LEAST = 100  # steps; below that, lists of the whole store are not worth it
# A store may hold this many times the steps that are looked up. With more, it is faster to ask for
# each of these.
MOST_OTHERS = 4


def list_published(repository: Repository, steps: int) -> dict[str, int]:
    """Return the bytes of all objects of steps and evaluations, by key.

    Args:
        repository: The records of the store.
        steps: How many steps are to be looked up.

    Returns:
        Nothing where lists would not help: a folder answers for each object at once.

    Raises:
        StoreError: The store does not answer.
    """
    if is_local(repository.store) or steps < LEAST:
        return {}
    evaluations = list_shares(repository, shares(layout.EVALUATIONS))
    found = {entry.key: entry.bytes for entry in evaluations}
    if len(set(map(layout.step_of, found))) > MOST_OTHERS * steps:
        return found
    for entry in list_shares(repository, shares(layout.STEPS)):
        found[entry.key] = entry.bytes
    return found


def list_shares(repository: Repository, prefixes: Iterable[str]) -> list[Entry]:
    """Return all objects below some prefixes, listed side by side."""
    found = repository.in_parallel(lambda each: list(repository.store.entries(each)), prefixes)
    return [entry for share in found for entry in share]
