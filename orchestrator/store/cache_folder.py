"""Keep files in a folder of limited size that all processes of a machine share.

The first process that needs a file makes it, and the others wait for it. A file that has its final
name is complete and verified. If it is written to later, it is made again.

The files that were used longest ago are removed, but never a file in use: a process that opens a
file holds a shared lock on it, as long as the file or a memory map of it is open. The folder may
therefore exceed its size. A lock ends with its process.
"""

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from orchestrator.store.base import StoreError
from orchestrator.store.locks import NoLocks, lock, unlock
from training.config import InputError

# Errors of a disk without space.
FULL = {errno.ENOSPC, errno.EDQUOT}


class CacheError(StoreError):
    """The cache's folder cannot be used."""


def without_locks(error: NoLocks) -> CacheError:
    """Return what to raise where the cache's folder has no locks."""
    return CacheError(
        f"{error}, and the processes that share the cache need them: set STEPCHAIN_CACHE to a "
        "folder on a local disk, such as /tmp/stepchain-cache"
    )


def obtain(name: str, cache_root: Path, make: Callable[[Path], None]) -> Path:
    """Return the cache's file of that name. If it is missing, `make(path)` writes and verifies it.

    The path that `make` gets is seen by no other process.
    """
    target = object_path(cache_root, name)
    seal = cache_root / "locks" / f"{name}.verified"
    try:
        if not _is_verified(target, seal):
            with _locked(cache_root / "locks" / name):
                # Another process may have made the file while this one waited for the lock.
                if not _is_verified(target, seal):
                    # A file that links to a store changes when it is written to there.
                    target.unlink(missing_ok=True)
                    _make(target, seal, cache_root, make)
        _mark_as_used(target)
    except NoLocks as error:
        raise without_locks(error) from error
    except OSError as error:
        raise CacheError(
            f"cannot keep {name} in the cache {cache_root} ({error.strerror or error}): "
            "check its rights and its disk, or name another folder with STEPCHAIN_CACHE"
        ) from error
    return target


def object_path(cache_root: Path, name: str) -> Path:
    """Return where the cache keeps the file of that name, whether it is there or not."""
    return cache_root / "objects" / name


def hold(find: Callable[[], Path]) -> BinaryIO:
    """Open the file of the cache that `find` returns.

    The file is not removed while it, or a map of it, is open.
    """
    while True:
        path = find()
        # The file may be removed before it is opened, and again before it is locked.
        with contextlib.ExitStack() as undo, contextlib.suppress(FileNotFoundError):
            file = undo.enter_context(path.open("rb"))
            try:
                lock(file, shared=True)
            except NoLocks as error:
                raise without_locks(error) from error
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                undo.pop_all()
                return file


def make_room(cache_root: Path, capacity: int) -> None:
    """Remove the files that were used longest ago, until the cache takes at most `capacity` bytes.

    Files in use stay.
    """
    own = sorted(_own_objects(cache_root), key=lambda item: item[1].st_atime_ns)
    size = sum(_size(status) for _, status in own)
    for path, status in own:
        if size <= capacity:
            return
        # A file that cannot be locked is in use; one that cannot be opened is another user's.
        with contextlib.suppress(BlockingIOError, PermissionError):
            _remove_unused(path)
            size -= _size(status)


def capacity(cache_root: Path) -> int:
    """Return the bytes that the cache may take.

    That is $STEPCHAIN_CACHE_GB, or else half of what the cache takes and the disk has free.
    """
    asked = os.environ.get("STEPCHAIN_CACHE_GB")
    if asked is None:
        used = sum(_size(status) for _, status in _own_objects(cache_root))
        return (used + shutil.disk_usage(cache_root).free) // 2
    try:
        return int(float(asked) * 1e9)
    except ValueError:
        raise InputError(
            f"STEPCHAIN_CACHE_GB is {asked!r}: give the cache's size in gigabytes, such as 50"
        ) from None


def _is_verified(target: Path, seal: Path) -> bool:
    """Return True if the file exists and was not written to since its digest was taken."""
    try:
        return seal.read_text() == _identity(target)
    except FileNotFoundError:
        return False


def _identity(path: Path) -> str:
    """Return which file this is, how large it is and when it was last written to."""
    status = path.stat()
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"


def _mark_as_used(path: Path) -> None:
    modified = path.stat().st_mtime_ns
    # The cache of another user can be read, but its order cannot be changed.
    with contextlib.suppress(PermissionError):
        os.utime(path, ns=(time.time_ns(), modified))


def _make(target: Path, seal: Path, cache_root: Path, make: Callable[[Path], None]) -> None:
    # The folder has the name of the file, so that what a killed process left is removed too.
    folder = cache_root / "partial" / target.name
    made = folder / target.name
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        try:
            _make_in_empty_folder(made, make)
        except OSError as error:
            if error.errno not in FULL:
                raise
            make_room(cache_root, 0)
            _make_in_empty_folder(made, make)
        with made.open("rb") as file:
            # The lock keeps the file while room is made for it.
            lock(file, shared=True)
            (folder / "seal").write_text(_identity(made))
            os.replace(folder / "seal", seal)
            os.replace(made, target)
            make_room(cache_root, capacity(cache_root))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make_in_empty_folder(path: Path, make: Callable[[Path], None]) -> None:
    shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.mkdir(parents=True)
    make(path)


def _remove_unused(path: Path) -> None:
    """Remove a file. Raise BlockingIOError if it is in use."""
    # Another process may have removed the file just now.
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        lock(file, wait=False)
        path.unlink()


def _own_objects(cache_root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Return the files whose removal frees space.

    A file that is also linked to from elsewhere, such as from a store, takes no space of its own.
    """
    for path in object_path(cache_root, "").iterdir():
        # Another process may have removed the file.
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            if status.st_nlink == 1:
                yield path, status


def _size(status: os.stat_result) -> int:
    """Return the bytes that a file takes on the disk, which are fewer if it has holes."""
    return status.st_blocks * 512


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock, which the system releases when the process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        lock(file)
        try:
            yield
        finally:
            unlock(file)
