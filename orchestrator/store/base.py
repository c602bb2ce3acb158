"""Define what an object store can do. A store is an S3 bucket or a folder.

A store maps keys such as `steps/0f3a/record.json` to bytes. It promises little, so that any store
will do: an object is seen whole or not at all, and later reads see the last write. Nothing here is
a lock, because some S3 servers do not honour `only_if_absent`. A store is a small value that
pickles without credentials. Each process opens its own connection.
"""

import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Protocol

from orchestrator.store.retries import Retries

# Folder of half-written files in a local store. No key begins with it.
TEMPORARY = ".tmp"

# Files that systems put into folders that people look at; others begin with a dot.
LITTER = {"Thumbs.db", "ehthumbs.db", "desktop.ini"}

# Threads that read a store at the same time. A store has as many connections, and the threads do
# nothing but wait for it.
READERS = 16


class StoreError(Exception):
    """A request failed at the store. The message says what failed, where, and what to do."""


class NotFound(StoreError):
    """The store has no object with this key."""

    def __init__(self, key: str, uri: str) -> None:
        super().__init__(f"there is no object {key!r} in the store {uri}")
        self.key = key
        self.uri = uri

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        """Return how to unpickle the error. By default, only its message would be passed on."""
        return type(self), (self.key, self.uri)


class Entry(NamedTuple):
    """An object as a listing shows it."""

    key: str
    bytes: int
    modified: datetime  # by the clock of the server or the file system


class Store(Protocol):
    """What every store can do.

    Keys are relative and `/`-separated, without `.` or `..`; others raise ValueError. Every method
    may raise StoreError.
    """

    @property
    def retries(self) -> Retries:
        """Return how often the store, and the cache that reads it, try again."""
        ...

    @property
    def uri(self) -> str:
        """Return the URI of the store: `open_store(store.uri)` opens the same store."""
        ...

    def check_answers(self) -> None:
        """Raise StoreError unless the store answers and is one, within 15 s.

        Other requests are more patient, because they wait for a server that comes back.
        """
        ...

    def read(self, key: str) -> bytes:
        """Return the whole object. Raise NotFound if it does not exist."""
        ...

    def read_range(self, key: str, first: int, count: int) -> bytes:
        """Return `count` bytes from byte `first` on, or fewer at the end of the object.

        Raise NotFound if it does not exist.
        """
        ...

    def write(self, key: str, data: bytes, only_if_absent: bool = False) -> bool:
        """Write an object, and replace what was there unless `only_if_absent`.

        Return True if anything was written.
        """
        ...

    def exists(self, key: str) -> bool:
        """Return True if there is an object with this key."""
        ...

    def list(self, prefix: str = "") -> Iterator[str]:
        """Return the keys that begin with `prefix` (a string, not a folder), sorted.

        What systems put into folders, such as .DS_Store, is passed over.
        """
        ...

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """Return what `list` does, with sizes and times."""
        ...

    def upload(self, path: Path, key: str) -> None:
        """Write a file of any size as an object."""
        ...

    def download(self, key: str, path: Path) -> None:
        """Copy an object to a file, which appears whole or not at all.

        Raise NotFound if it does not exist, and OSError if the file's disk fails.
        """
        ...

    def delete(self, prefix: str) -> None:
        """Delete all keys below a `prefix` that ends with `/`, else the one object of that key.

        An object that does not exist is no error.
        """
        ...

    def local_path(self, key: str) -> Path | None:
        """Return the object's file on this machine, or None if the store is not a folder.

        The file must not be written to.
        """
        ...


def check_writable(store: Store) -> None:
    """Write, read and delete a small object.

    Raise StoreError before time is spent on results that cannot be kept.
    """
    key = f"probe-{uuid.uuid4().hex}"
    store.write(key, b"stepchain")
    if store.read(key) != b"stepchain":
        raise StoreError(
            f"the store {store.uri} does not return what was just written: check what serves it"
        )
    store.delete(key)


def write_if_changed(store: Store, key: str, data: bytes) -> bool:
    """Write an object unless it holds this already. Return True if anything was written."""
    try:
        if store.read(key) == data:
            return False
    except NotFound:
        pass
    return store.write(key, data)


def is_local(store: Store) -> bool:
    """Return True if the store is a folder that this machine sees."""
    return store.local_path("object") is not None


def is_litter(key: str) -> bool:
    """Return True for a hidden file, or another that a system put there: no key of ours is one."""
    return any(part.startswith(".") or part in LITTER for part in key.split("/"))


def checked_key(key: str) -> str:
    """Return the key. Raise ValueError if it could leave the store or be spelled in two ways."""
    has_bad_part = any(part in ("", ".", "..") for part in key.split("/"))
    has_bad_character = "\\" in key or "\0" in key
    if has_bad_part or has_bad_character or key.startswith(TEMPORARY):
        raise ValueError(
            f"{key!r} is not a key: it must be relative, without empty, '.' or '..' parts"
        )
    return key
