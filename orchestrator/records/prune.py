"""Find and delete attempts without a result, and checkpoints of published steps.

An attempt stays when a record names it, as a step's own or as the parent that a later step was
trained from, and when it was a second one on purpose (`orchestrator.records.reproduction`).
Everything of a step stays while a worker may be training it. That may be so until its lease and the
attempt were left untouched for the grace period. The newest checkpoint of an unpublished step stays
too, because the next attempt resumes from it. What was asked of a step (`request.json`) always
stays.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import PurePosixPath
from typing import NamedTuple

from pydantic import BaseModel

from orchestrator.records import layout
from orchestrator.records.attempts import newest_checkpoint
from orchestrator.records.keys import shares
from orchestrator.records.listing import list_shares
from orchestrator.records.repository import Repository
from orchestrator.store.base import Entry, Store
from orchestrator.store.retries import DEFAULT_RETRIES

GRACE = DEFAULT_RETRIES.prune_grace


class Lineage(BaseModel):
    """The attempts that a StepRecord names.

    Reading the method's document as well would import its code, and with it torch.
    """

    key: str
    attempt: str
    parent: str | None
    parent_attempt: str | None


class Leftover(NamedTuple):
    """A folder that can be deleted."""

    folder: str  # ends with /
    step: str
    reason: str
    objects: int
    bytes: int


@dataclass(frozen=True)
class _StepFiles:
    """The objects of one step, and the attempts that records name."""

    key: str
    entries: list[Entry]
    named: set[str]  # attempts that records name
    published: bool

    def touched_since(self, before: datetime) -> bool:
        """Return True if a worker may hold the lease: every heartbeat writes it again."""
        lease = layout.step_lease(self.key)
        return any(entry.key == lease and entry.modified > before for entry in self.entries)

    def attempts(self) -> dict[str, list[Entry]]:
        """Return the objects of each attempt."""
        found: defaultdict[str, list[Entry]] = defaultdict(list)
        folder = layout.attempts_folder(self.key)
        for entry in self.entries:
            if entry.key.startswith(folder):
                found[layout.attempt_of(entry.key)].append(entry)
        return found


def leftovers(
    store: Store,
    steps: Collection[str] | None = None,
    *,
    unfinished: bool = False,
    grace: timedelta = GRACE,
) -> tuple[Leftover, ...]:
    """Return what can be deleted. Reads all records and deletes nothing.

    Args:
        store: The store to look at.
        steps: Keys of the steps to look at; by default all of the store.
        unfinished: Also return the newest checkpoints of unpublished steps. What they hold must be
            trained again.
        grace: Leave alone what was written within this period.

    Raises:
        StoreError: The store does not answer.
    """
    before = datetime.now(UTC) - grace
    repository = Repository(store)
    wanted = [
        step for step in _read_steps(repository).values() if steps is None or step.key in steps
    ]
    found = repository.in_parallel(
        lambda step: list(_leftovers_of_step(store, step, before, unfinished)), wanted
    )
    return tuple(chain.from_iterable(found))


def delete(
    store: Store, found: Iterable[Leftover], *, unfinished: bool = False, grace: timedelta = GRACE
) -> list[Leftover]:
    """Delete the leftovers that still are leftovers, and return them.

    A worker may have begun to train a step since they were found.
    """
    wanted = {leftover.folder for leftover in found}
    steps = {layout.step_of(folder) for folder in wanted}
    remaining = leftovers(store, steps, unfinished=unfinished, grace=grace)
    deleted = [leftover for leftover in remaining if leftover.folder in wanted]
    Repository(store).in_parallel(lambda leftover: _delete_folder(store, leftover.folder), deleted)
    return deleted


def _delete_folder(store: Store, folder: str) -> None:
    # Deleted first, so that a half deleted checkpoint is not taken for a complete one.
    for name in filter(layout.is_checkpoint_done, store.list(folder)):
        store.delete(name)
    store.delete(folder)


def _read_steps(repository: Repository) -> dict[str, _StepFiles]:
    entries: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in list_shares(repository, shares(layout.STEPS)):
        entries[layout.step_of(entry.key)].append(entry)
    published = {step for step, objects in entries.items() if _has_record(objects)}
    names = [layout.step_record(step) for step in published]
    records = repository.listed(names, Lineage)
    # Of a step whose record cannot be read, nothing may go.
    unknown = published - {record.key for record in records}
    named = _named_attempts(records)
    return {
        step: _StepFiles(
            step, objects, named.get(step, set()) | _reproductions(step, objects), step in published
        )
        for step, objects in entries.items()
        if step not in unknown
    }


def _reproductions(step: str, entries: Iterable[Entry]) -> set[str]:
    """Return the attempts that were made again on purpose."""
    folder = layout.reproductions_folder(step)
    names = [entry.key for entry in entries if entry.key.startswith(folder)]
    return {PurePosixPath(name).stem for name in names}


def _has_record(entries: Iterable[Entry]) -> bool:
    return any(layout.is_step_record(entry.key) for entry in entries)


def _named_attempts(records: Iterable[Lineage]) -> Mapping[str, set[str]]:
    """Return the attempts that records name, by step."""
    named: defaultdict[str, set[str]] = defaultdict(set)
    for record in records:
        named[record.key].add(record.attempt)
        if record.parent and record.parent_attempt:
            named[record.parent].add(record.parent_attempt)
    return named


def _leftovers_of_step(
    store: Store, step: _StepFiles, before: datetime, unfinished: bool
) -> Iterator[Leftover]:
    if step.touched_since(before):
        return
    kept = None if step.published or unfinished else newest_checkpoint(store, step.key)
    for attempt, entries in step.attempts().items():
        is_young = any(entry.modified > before for entry in entries)
        is_needed = kept is not None and kept.attempt == attempt
        if not is_young and not is_needed:
            yield from _leftovers_of_attempt(step, attempt, entries)


def _leftovers_of_attempt(
    step: _StepFiles, attempt: str, entries: list[Entry]
) -> Iterator[Leftover]:
    if attempt not in step.named:
        folder = f"{layout.attempt_folder(step.key, attempt)}/"
        reason = "its step is not published, and no worker trains it"
        if step.published:
            reason = "came second to the published attempt"
        yield _leftover(folder, step.key, reason, entries)
        return
    folder = layout.checkpoints_folder(step.key, attempt)
    checkpoints = [entry for entry in entries if entry.key.startswith(folder)]
    if checkpoints:
        yield _leftover(folder, step.key, "checkpoints of a published step", checkpoints)


def _leftover(folder: str, step: str, reason: str, entries: list[Entry]) -> Leftover:
    size = sum(entry.bytes for entry in entries)
    return Leftover(folder, step, reason, len(entries), size)
