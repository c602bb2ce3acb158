"""What one try at a step leaves in the store, while it runs and after.

An attempt writes to a folder of its own and never to another's, so racing, dead and revived attempts cannot spoil each
other. Below `steps/<key>/attempts/<attempt>/`:

    checkpoints/<iteration>/...   state to resume from; complete once done.json, written last, names every file by digest
    curves/<iteration>.json       a piece of the training curves, from that iteration on
    progress.json                 how far the attempt has come
    files/...                     what the step publishes
    error.txt                     why it failed
"""

import json
import logging
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from orchestrator.records import layout
from orchestrator.records.schema import File
from orchestrator.store.base import NotFound, Store
from orchestrator.store.cache import CorruptedObject, copy_object, default_cache, file_sha256
from training.curves import CurveRow

log = logging.getLogger(__name__)

KEPT_CHECKPOINTS = 2
CURVE_ROWS = 100  # in a piece of the curves: long steps must not leave thousands of objects
FILES = TypeAdapter(dict[str, File])


class Checkpoint(NamedTuple):
    """A complete checkpoint of some attempt of a step."""

    iteration: int
    attempt: str
    folder: str
    files: dict[str, File]


def new_attempt() -> str:
    """A name no other attempt has; names sort by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"


def upload_folder(store: Store, source: Path, folder: str) -> dict[str, File]:
    """Write the files of a local folder below `folder`; returns them by name."""
    files = {}
    for path in sorted(source.iterdir()):
        files[path.name] = File(sha256=file_sha256(path), bytes=path.stat().st_size)
        store.upload(path, f"{folder}/{path.name}")
    return files


def fetch_folder(store: Store, folder: str, files: dict[str, File], target: Path) -> Path:
    """The files named, verified and as a local folder; the machine's cache holds them once for all its workers."""
    target.mkdir(parents=True)
    for name, file in files.items():
        copy_object(store, f"{folder}/{name}", file.sha256, default_cache(), target / name)
    return target


def save_checkpoint(store: Store, key: str, attempt: str, folder: Path, iteration: int) -> None:
    """Upload a checkpoint, then remove the attempt's older ones."""
    target = layout.checkpoint_folder(key, attempt, iteration)
    files = upload_folder(store, folder, target)
    store.write(layout.checkpoint_done(target), FILES.dump_json(files))
    names = store.list(layout.checkpoints_folder(key, attempt))
    complete = [name for name in names if layout.is_checkpoint_done(name)]
    for done in complete[:-KEPT_CHECKPOINTS]:
        # Deleted first, so that a half deleted checkpoint is not taken for a complete one.
        store.delete(done)
        outdated, _, _ = layout.checkpoint_of(done)
        store.delete(f"{outdated}/")


def newest_checkpoint(store: Store, key: str) -> Checkpoint | None:
    """The complete checkpoint with most iterations, whichever attempt wrote it."""
    return next(checkpoints(store, key), None)


def sound_checkpoint(store: Store, key: str) -> Checkpoint | None:
    """The newest complete checkpoint whose files are what they were when they were written."""
    for checkpoint in checkpoints(store, key):
        with TemporaryDirectory(prefix="stepchain-") as scratch:
            try:
                fetch_folder(store, checkpoint.folder, checkpoint.files, Path(scratch, "files"))
                return checkpoint
            except (CorruptedObject, NotFound) as error:
                log.warning(
                    "the checkpoint after %d iterations cannot be used: %s",
                    checkpoint.iteration,
                    error,
                )
    return None


def checkpoints(store: Store, key: str) -> Iterator[Checkpoint]:
    """The complete checkpoints of a step, most iterations first, whichever attempts wrote them."""
    names = store.list(layout.attempts_folder(key))
    done = [name for name in names if layout.is_checkpoint_done(name)]
    for name in sorted(done, key=_iteration, reverse=True):
        try:
            files = FILES.validate_json(store.read(name))
        except NotFound:  # its attempt is alive and has just removed it, after writing newer ones
            continue
        except ValidationError:
            log.warning("%s is not what was written there: the checkpoint cannot be used", name)
            continue
        folder, attempt, iteration = layout.checkpoint_of(name)
        yield Checkpoint(iteration, attempt, folder, files)


def _iteration(done: str) -> int:
    _, _, iteration = layout.checkpoint_of(done)
    return iteration


def delete_checkpoints(store: Store, key: str) -> None:
    """Remove what nobody will resume from: the checkpoints of all attempts at a step that is published."""
    for name in store.list(layout.attempts_folder(key)):
        if layout.is_in_checkpoint(name):
            store.delete(name)


def attempt_names(store: Store, key: str) -> list[str]:
    """The tries at a step that have left anything, oldest first."""
    return sorted({layout.attempt_of(name) for name in store.list(layout.attempts_folder(key))})


def count_attempts(store: Store, key: str) -> int:
    """How many tries at a step have left anything."""
    return len(attempt_names(store, key))


def write_curves(store: Store, key: str, attempt: str, rows: list[CurveRow]) -> None:
    """Write a piece of an attempt's curves; with rows added to it, it is written again."""
    name = layout.curves_piece(key, attempt, int(rows[0]["iteration"]))
    store.write(name, json.dumps(rows).encode())


def read_curves(
    store: Store, key: str, attempt: str, seen: dict[str, int]
) -> Iterator[list[CurveRow]]:
    """Rows of an attempt's curves that were not read before. `seen` counts what was read of each piece."""
    for name in store.list(layout.curves_folder(key, attempt)):
        known = seen.get(name, 0)
        if known < CURVE_ROWS:
            rows = json.loads(store.read(name))
            if len(rows) > known:
                yield rows[known:]
            seen[name] = len(rows)
