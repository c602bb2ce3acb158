"""Read and write what an attempt at a step leaves in the store, while it runs and afterwards.

An attempt writes to a folder of its own and never to another's, so racing, dead and resumed
attempts cannot spoil each other. A checkpoint is complete once its `done.json` exists, which is
written last and names every file by digest. The last checkpoint is the files to publish, and
`trained.json` completes it. `orchestrator.records.layout` shows the folder.
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

# Rows in a piece of the curves. Long steps must not leave thousands of objects.
CURVE_ROWS = 100

FILES = TypeAdapter(dict[str, File])


class Checkpoint(NamedTuple):
    """A complete checkpoint of some attempt of a step."""

    iteration: int
    attempt: str
    folder: str
    files: dict[str, File]
    trained: bool  # whether the files are those to publish, because no iteration is left


def new_attempt() -> str:
    """Return a name that no other attempt has. Names sort by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"


def upload_folder(store: Store, source: Path, folder: str) -> dict[str, File]:
    """Write the files of a local folder below `folder` of the store. Return them by name."""
    files = {}
    for path in sorted(source.iterdir()):
        files[path.name] = File(sha256=file_sha256(path), bytes=path.stat().st_size)
        store.upload(path, f"{folder}/{path.name}")
    return files


def fetch_folder(
    store: Store, folder: str, files: dict[str, File], target: Path, cache: Path | None = None
) -> Path:
    """Write verified copies of files to the local folder `target`, and return it.

    The cache of the machine holds the files once for all its workers.

    Args:
        store: The store to read from.
        folder: Folder of the files in the store.
        files: The files, by name.
        target: The local folder, which must not exist.
        cache: Where files are kept; None: the machine's cache.

    Raises:
        NotFound: A file is gone.
        CorruptedObject: A file has another digest.
    """
    target.mkdir(parents=True)
    for name, file in files.items():
        copy_object(store, f"{folder}/{name}", file.sha256, cache or default_cache(), target / name)
    return target


def save_checkpoint(store: Store, key: str, attempt: str, folder: Path, iteration: int) -> None:
    """Upload a checkpoint, then delete the attempt's older ones."""
    target = layout.checkpoint_folder(key, attempt, iteration)
    files = upload_folder(store, folder, target)
    newest = layout.checkpoint_done(target)
    store.write(newest, FILES.dump_json(files))
    names = store.list(layout.checkpoints_folder(key, attempt))
    complete = [name for name in names if layout.is_checkpoint_done(name) and name <= newest]
    for done in complete[:-KEPT_CHECKPOINTS]:
        # Deleted first, so that a half deleted checkpoint is not taken for a complete one.
        store.delete(done)
        outdated, _, _ = layout.checkpoint_of(done)
        store.delete(f"{outdated}/")


def publish_files(
    store: Store, key: str, attempt: str, source: Path, iterations: int
) -> dict[str, File]:
    """Upload the files of a trained step, and return them by name.

    They are a checkpoint, too: a step that is not scored yet is not trained again.
    """
    files = upload_folder(store, source, layout.files_folder(key, attempt))
    done = layout.checkpoint_done(layout.checkpoint_folder(key, attempt, iterations), trained=True)
    store.write(done, FILES.dump_json(files))
    return files


def newest_checkpoint(store: Store, key: str, attempt: str | None = None) -> Checkpoint | None:
    """Return the complete checkpoint with the most iterations, or None. See `checkpoints`."""
    return next(checkpoints(store, key, attempt), None)


def sound_checkpoint(store: Store, key: str, attempt: str | None = None) -> Checkpoint | None:
    """Return the newest checkpoint whose files have their digests, or None. See `checkpoints`."""
    for checkpoint in checkpoints(store, key, attempt):
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


def checkpoints(store: Store, key: str, attempt: str | None = None) -> Iterator[Checkpoint]:
    """Give the complete checkpoints of a step, those with most iterations first.

    Args:
        store: The store.
        key: The step.
        attempt: The attempt that wrote them; None for those of all attempts.
    """
    folder = layout.checkpoints_folder(key, attempt) if attempt else layout.attempts_folder(key)
    names = store.list(folder)
    done = [name for name in names if layout.is_checkpoint_done(name)]
    for name in sorted(done, key=_iteration, reverse=True):
        try:
            files = FILES.validate_json(store.read(name))
        except NotFound:
            # Its attempt is running and has just deleted it, after writing newer ones.
            continue
        except ValidationError:
            log.warning("%s is not what was written there: the checkpoint cannot be used", name)
            continue
        folder, attempt, iteration = layout.checkpoint_of(name)
        trained = folder == layout.files_folder(key, attempt)
        yield Checkpoint(iteration, attempt, folder, files, trained)


def _iteration(done: str) -> int:
    _, _, iteration = layout.checkpoint_of(done)
    return iteration


def delete_checkpoints(store: Store, key: str) -> None:
    """Delete the checkpoints of all attempts at a published step, which no attempt resumes from."""
    for name in store.list(layout.attempts_folder(key)):
        if name.startswith(layout.checkpoints_folder(key, layout.attempt_of(name))):
            store.delete(name)


def attempt_names(store: Store, key: str) -> list[str]:
    """Return the attempts at a step that have written anything, the oldest first."""
    return sorted({layout.attempt_of(name) for name in store.list(layout.attempts_folder(key))})


def count_attempts(store: Store, key: str) -> int:
    """Return how many attempts at a step have written anything."""
    return len(attempt_names(store, key))


def write_curves(store: Store, key: str, attempt: str, rows: list[CurveRow]) -> None:
    """Write a piece of an attempt's curves. A piece to which rows were added is written again."""
    name = layout.curves_piece(key, attempt, int(rows[0]["iteration"]))
    store.write(name, json.dumps(rows).encode())


def read_curves(
    store: Store, key: str, attempt: str, seen: dict[str, int]
) -> Iterator[list[CurveRow]]:
    """Give the rows of an attempt's curves that were not read before.

    `seen` counts the rows that were read of each piece, and is updated.
    """
    for name in store.list(layout.curves_folder(key, attempt)):
        known = seen.get(name, 0)
        if known < CURVE_ROWS:
            rows = json.loads(store.read(name))
            if len(rows) > known:
                yield rows[known:]
            seen[name] = len(rows)
