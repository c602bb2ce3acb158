"""Keep local copies of stored objects, named by their sha256 and verified before they are opened.

Each copy is verified once. From a store in a folder of the same disk, an object is hard-linked
instead of copied, and verified all the same. If it is written to there, it is verified again.
`orchestrator.store.cache_folder` describes how processes share the folder, and what it removes.
"""

import contextlib
import os
import shutil
from functools import partial
from hashlib import file_digest
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from orchestrator.store.base import Store, StoreError
from orchestrator.store.cache_folder import hold, obtain

ANEW = "delete it and publish it again"  # how to mend an object, unless a caller knows better


class CorruptedObject(StoreError):
    """A stored object is not what its digest says."""


def default_cache() -> Path:
    """Return the cache's folder: $STEPCHAIN_CACHE, or `~/.cache/stepchain` if that is empty."""
    return Path(os.environ.get("STEPCHAIN_CACHE") or "~/.cache/stepchain").expanduser()


def fetch(store: Store, key: str, sha256: str, cache_root: Path, mend: str = ANEW) -> Path:
    """Return the path of a verified local copy, which must be opened at once and only be read.

    Args:
        store: The store that holds the object.
        key: Key of the object. The copy keeps its suffix.
        sha256: Digest that the object must have.
        cache_root: Folder of the cache.
        mend: How to mend the object, as an error says it.

    Raises:
        NotFound: The store has no such object.
        CacheError: The cache's folder cannot be used.
        CorruptedObject: The stored bytes have another digest. Nothing is kept then.
    """
    name = f"{sha256}{PurePosixPath(key).suffix}"
    return obtain(name, cache_root, partial(_download, store, key, sha256, mend))


def open_object(
    store: Store, key: str, sha256: str, cache_root: Path, mend: str = ANEW
) -> BinaryIO:
    """Open the verified local copy. It stays in the cache while the file or a map of it is open."""
    return hold(lambda: fetch(store, key, sha256, cache_root, mend))


def copy_object(store: Store, key: str, sha256: str, cache_root: Path, path: Path) -> None:
    """Write the object to `path`, as a link to the cache's copy if both are on one disk.

    The file stays at `path` when the cache removes its copy.
    """
    with open_object(store, key, sha256, cache_root) as file:
        try:
            os.link(file.name, path)
        except OSError:
            # The path is on another disk, or on one without links.
            shutil.copyfile(file.name, path)


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file as 64 hex digits."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _download(store: Store, key: str, sha256: str, mend: str, path: Path) -> None:
    """Fetch an object and verify it. Fetch it again if the network damaged it."""
    found = ""
    for _ in range(store.retries.damaged_fetches):
        path.unlink(missing_ok=True)
        _link_or_download(store, key, path)
        found = file_sha256(path)
        if found == sha256:
            return
    raise CorruptedObject(
        f"object {key!r} of the store {store.uri} is corrupted: its sha256 is {found}, "
        f"but {sha256} was published; {mend}"
    )


def _link_or_download(store: Store, key: str, path: Path) -> None:
    """Link to the object if the store is a folder on the same disk, else download it."""
    original = store.local_path(key)
    if original is not None:
        # The link fails on another disk, without hard links, or without the object. The download
        # then says which it is.
        with contextlib.suppress(OSError):
            os.link(original, path)
            return
    store.download(key, path)
