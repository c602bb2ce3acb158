"""Local copies of stored objects, each named by its sha256 and verified before anyone may open it.

All processes of a machine share one cache: whoever comes first fetches an object while the others wait for it. What has its
final name is whole and has the digest it is named by; it is never changed, so it is verified only once. From a store in a
folder of the same disk an object is hard-linked instead of copied, and verified all the same.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from orchestrator.store import Store, StoreError


class CorruptedObject(StoreError):
    """A stored object is not what its digest says."""


def default_cache() -> Path:
    """$STEPCHAIN_CACHE, or `~/.cache/stepchain`."""
    return Path(os.environ.get("STEPCHAIN_CACHE", "~/.cache/stepchain")).expanduser()


def fetch(store: Store, key: str, sha256: str, cache_root: Path) -> Path:
    """Path of a verified local copy, to be read only; it keeps the key's suffix.

    Raises NotFound, or CorruptedObject when the bytes in the store have another digest; nothing is kept then.
    """
    target = cache_root / "objects" / f"{sha256}{PurePosixPath(key).suffix}"
    if target.exists():
        return target
    with _locked(cache_root / "locks" / target.name):
        if not target.exists():  # not even after waiting for the lock
            folder = cache_root / "partial" / target.name  # known by name, so what a killed process left goes too
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            try:
                _place(store, key, folder / target.name)
                found = file_sha256(folder / target.name)
                if found != sha256:
                    raise CorruptedObject(
                        f"object {key!r} of the store {store.uri} is corrupted: its sha256 is {found}, but {sha256} was "
                        "published; delete it and publish it again"
                    )
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(folder / target.name, target)
            finally:
                shutil.rmtree(folder)
    return target


def file_sha256(path: Path) -> str:
    """sha256 of a file as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _place(store: Store, key: str, path: Path) -> None:
    """Link to the object where the store is a folder on the same disk, else download it."""
    original = store.local_path(key)
    if original is not None:
        with contextlib.suppress(OSError):  # another disk, no hard links, or no such object: the download says which
            os.link(original, path)
            return
    store.download(key, path)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that the system releases when the process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
