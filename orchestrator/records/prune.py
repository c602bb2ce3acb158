"""Find and delete what nobody needs any more: attempts that came to nothing, and checkpoints of steps that are published.

An attempt stays when a record names it, as a step's own or as the parent that a later step was trained from. Everything of a
step stays while somebody may be at work on it: until its lease, and the attempt itself, were left untouched for the grace
period. The newest checkpoint of a step that is not published stays, too, as its next attempt goes on from there.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from orchestrator.records import layout
from orchestrator.records.attempts import newest_checkpoint
from orchestrator.records.schema import StepRecord
from orchestrator.store.base import READERS, Entry, Store

GRACE = timedelta(hours=24)  # covers clocks that differ and whoever does not answer for a while


class Leftover(NamedTuple):
    """A folder that may go."""

    folder: str  # ends with /
    step: str
    reason: str
    objects: int
    bytes: int


def leftovers(
    store: Store,
    steps: Collection[str] | None = None,
    *,
    unfinished: bool = False,
    grace: timedelta = GRACE,
) -> tuple[Leftover, ...]:
    """What may be deleted, of these steps or of all in the store. Reads all records, deletes nothing. Raises StoreError.

    `unfinished`: also the newest checkpoints of steps that are not published; what they cost must be trained again.
    """
    entries: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in store.entries(layout.STEPS):
        entries[layout.step_of(entry.key)].append(entry)
    published = {
        step
        for step, found in entries.items()
        if any(entry.key == layout.step_record(step) for entry in found)
    }
    named = _named_attempts(store, published)
    before = datetime.now(UTC) - grace
    found = [
        leftover
        for step in (entries if steps is None else [step for step in entries if step in steps])
        for leftover in _of_step(
            store, step, entries[step], named[step], before, step in published, unfinished
        )
    ]
    return tuple(found)


def delete(
    store: Store, found: Iterable[Leftover], *, unfinished: bool = False, grace: timedelta = GRACE
) -> list[Leftover]:
    """Delete leftovers that still are leftovers, and return them: somebody may have begun to work on a step since."""
    wanted = {leftover.folder for leftover in found}
    still = leftovers(
        store, {layout.step_of(folder) for folder in wanted}, unfinished=unfinished, grace=grace
    )
    gone = [leftover for leftover in still if leftover.folder in wanted]
    for leftover in gone:
        for name in store.list(leftover.folder):
            if layout.is_checkpoint_done(name):
                store.delete(
                    name
                )  # first, so that what is half deleted is not taken for a complete checkpoint
        store.delete(leftover.folder)
    return gone


def _named_attempts(store: Store, published: Iterable[str]) -> defaultdict[str, set[str]]:
    """The attempts that records name, by step."""
    named: defaultdict[str, set[str]] = defaultdict(set)
    with ThreadPoolExecutor(READERS) as readers:
        for data in readers.map(lambda step: store.read(layout.step_record(step)), published):
            record = StepRecord.model_validate_json(data)
            named[record.key].add(record.attempt)
            if record.parent and record.parent_attempt:
                named[record.parent].add(record.parent_attempt)
    return named


def _of_step(
    store: Store,
    step: str,
    entries: list[Entry],
    named: set[str],
    before: datetime,
    published: bool,
    unfinished: bool,
) -> Iterator[Leftover]:
    """What of one step may go."""
    if any(entry.key == layout.step_lease(step) and entry.modified > before for entry in entries):
        return  # every heartbeat writes the lease anew: somebody is, or was not long ago, at work on it
    attempts: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.key.startswith(layout.attempts_folder(step)):
            attempts[layout.attempt_of(entry.key)].append(entry)
    newest = None if published or unfinished else newest_checkpoint(store, step)
    for attempt, files in attempts.items():
        if any(entry.modified > before for entry in files) or (
            newest and newest.attempt == attempt
        ):
            continue
        folder = f"{layout.attempt_folder(step, attempt)}/"
        if attempt not in named:
            reason = (
                "came second to the published attempt"
                if published
                else "its step is not published, nobody works on it"
            )
            yield Leftover(folder, step, reason, len(files), sum(entry.bytes for entry in files))
        elif states := [
            entry
            for entry in files
            if entry.key.startswith(layout.checkpoints_folder(step, attempt))
        ]:
            reason = "checkpoints of a published step"
            yield Leftover(
                layout.checkpoints_folder(step, attempt),
                step,
                reason,
                len(states),
                sum(entry.bytes for entry in states),
            )
