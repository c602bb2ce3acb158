"""Local copies of stored objects, each named by its sha256 and verified before anyone may open it.

All processes of a machine share one cache: whoever comes first fetches an object while the others wait for it. What has its
final name is whole and has the digest it is named by, and is verified only once. From a store in a folder of the same disk an
object is hard-linked instead of copied, and verified all the same; should somebody write to it there, it is verified anew.

The cache keeps to a size by removing what was used longest ago, but nothing that is in use: who opens an object holds a
shared lock on it, as long as the file, or a memory map of it, is open in any process. So it may grow beyond its size while
that much is in use. A lock ends with its process, however that ends.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import file_digest
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from orchestrator.store.base import Store, StoreError
from training.config import InputError

TRIES = 3  # at an object that arrives damaged: the network may have done it, and not the store
FULL = {errno.ENOSPC, errno.EDQUOT}


class CorruptedObject(StoreError):
    """A stored object is not what its digest says."""


class CacheError(StoreError):
    """The cache's folder cannot be used."""


def default_cache() -> Path:
    """$STEPCHAIN_CACHE, or `~/.cache/stepchain`."""
    return Path(os.environ.get("STEPCHAIN_CACHE", "~/.cache/stepchain")).expanduser()


def fetch(store: Store, key: str, sha256: str, cache_root: Path) -> Path:
    """Path of a verified local copy, to be opened at once and only read; it keeps the key's suffix.

    Raises NotFound, CacheError, or CorruptedObject when the bytes in the store have another digest; nothing is kept then.
    """
    return obtain(
        f"{sha256}{PurePosixPath(key).suffix}", cache_root, partial(_download, store, key, sha256)
    )


def open_object(store: Store, key: str, sha256: str, cache_root: Path) -> BinaryIO:
    """The verified local copy, opened to be read; it stays in the cache as long as it, or a map of it, is open."""
    return hold(lambda: fetch(store, key, sha256, cache_root))


def copy_object(store: Store, key: str, sha256: str, cache_root: Path, path: Path) -> None:
    """Put the object at `path`, as a link to the cache's copy where one disk holds both; it stays there in any case."""
    with open_object(store, key, sha256, cache_root) as file:
        try:
            os.link(file.name, path)
        except OSError:  # another disk, or one without links
            shutil.copyfile(file.name, path)


def obtain(name: str, cache_root: Path, make: Callable[[Path], None]) -> Path:
    """The cache's file of that name; unless it is there, `make(path)` writes it, verified, where nobody sees it yet."""
    target, seal = cache_root / "objects" / name, cache_root / "locks" / f"{name}.verified"
    try:
        if not _as_verified(target, seal):
            with _locked(cache_root / "locks" / name):
                if not _as_verified(target, seal):  # not even after waiting for the lock
                    target.unlink(
                        missing_ok=True
                    )  # written to since: whoever links to a store shares its file
                    _make(target, seal, cache_root, make)
        status = target.stat()
        with contextlib.suppress(
            PermissionError
        ):  # another user's cache may be read, though not reordered
            os.utime(target, ns=(time.time_ns(), status.st_mtime_ns))
    except OSError as error:
        raise CacheError(
            f"cannot keep {name} in the cache {cache_root} ({error.strerror or error}): check its rights and its disk, or "
            "name another folder with STEPCHAIN_CACHE"
        ) from error
    return target


def hold(find: Callable[[], Path]) -> BinaryIO:
    """Open the file of the cache that `find` returns, so that it is not removed while it, or a map of it, is open."""
    while True:
        path = find()
        with (
            contextlib.ExitStack() as undo,
            contextlib.suppress(FileNotFoundError),
        ):  # removed before it was opened
            file = undo.enter_context(path.open("rb"))
            fcntl.flock(file, fcntl.LOCK_SH)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):  # nor before it was locked
                undo.pop_all()
                return file


def make_room(cache_root: Path, capacity: int) -> None:
    """Remove what was used longest ago and is not in use, until the cache takes at most `capacity` bytes of the disk."""
    own = sorted(_own_objects(cache_root), key=lambda item: item[1].st_atime_ns)
    size = sum(_size(status) for _, status in own)
    for path, status in own:
        if size <= capacity:
            return
        with contextlib.suppress(BlockingIOError, PermissionError):  # in use, or another user's
            with (
                contextlib.suppress(FileNotFoundError),
                path.open("rb") as file,
            ):  # another process made room just now
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            size -= _size(status)


def capacity(cache_root: Path) -> int:
    """Bytes that the cache may take: $STEPCHAIN_CACHE_GB, or half of the disk's space that it has or is free."""
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


def file_sha256(path: Path) -> str:
    """sha256 of a file as 64 hex digits."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _as_verified(target: Path, seal: Path) -> bool:
    """Whether the file is there, and nobody has written to it since its digest was taken."""
    try:
        return seal.read_text() == _identity(target)
    except FileNotFoundError:
        return False


def _identity(path: Path) -> str:
    """Which file it is, and when it was last written to."""
    status = path.stat()
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"


def _make(target: Path, seal: Path, cache_root: Path, make: Callable[[Path], None]) -> None:
    folder = (
        cache_root / "partial" / target.name
    )  # known by name, so what a killed process left goes too
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        for last in (False, True):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            try:
                make(folder / target.name)
                break
            except OSError as error:
                if last or error.errno not in FULL:
                    raise
                make_room(cache_root, 0)
        with (folder / target.name).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)  # so that room is made elsewhere
            (folder / "seal").write_text(_identity(folder / target.name))
            os.replace(folder / "seal", seal)
            os.replace(folder / target.name, target)
            make_room(cache_root, capacity(cache_root))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _own_objects(cache_root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """What removing would free space; what is linked to from elsewhere as well, as from a store, takes none here."""
    for path in (cache_root / "objects").iterdir():
        with contextlib.suppress(FileNotFoundError):  # removed by another process
            status = path.stat()
            if status.st_nlink == 1:
                yield path, status


def _size(status: os.stat_result) -> int:
    """Bytes on the disk: files may have holes."""
    return status.st_blocks * 512


def _download(store: Store, key: str, sha256: str, path: Path) -> None:
    """Bring an object here and look whether it is the one."""
    found = ""
    for _ in range(TRIES):
        path.unlink(missing_ok=True)
        _place(store, key, path)
        found = file_sha256(path)
        if found == sha256:
            return
    raise CorruptedObject(
        f"object {key!r} of the store {store.uri} is corrupted: its sha256 is {found}, but {sha256} was published; delete it "
        "and publish it again"
    )


def _place(store: Store, key: str, path: Path) -> None:
    """Link to the object where the store is a folder on the same disk, else download it."""
    original = store.local_path(key)
    if original is not None:
        with contextlib.suppress(
            OSError
        ):  # another disk, no hard links, or no such object: the download says which
            os.link(original, path)
            return
    store.download(key, path)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that the system releases when the process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(
                file, fcntl.LOCK_UN
            )  # closing is not enough where a process was forked meanwhile
