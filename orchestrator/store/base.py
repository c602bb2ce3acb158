"""Where everything published lives: an object store, which is an S3 bucket or just a folder.

A store maps keys such as `steps/0f3a/record.json` to bytes. It promises little, so that any store will do: an object is seen
whole or not at all, and later reads see the last write. Nothing here is a lock; `only_if_absent` is a courtesy that some S3
servers do not honour. A store is a small value that pickles without credentials: each process opens its own connection.
"""

import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Protocol

TEMPORARY = ".tmp"  # folder of half-written files in a local store; no key begins with it


class StoreError(Exception):
    """The store cannot do what was asked; the message says what, where and what to do."""


class NotFound(StoreError):
    """There is no object of that key."""

    def __init__(self, key: str, uri: str) -> None:
        super().__init__(f"there is no object {key!r} in the store {uri}")
        self.key = key
        self.uri = uri

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        """Workers send it to whoever started them; an exception pickles as its class called with its message alone."""
        return type(self), (self.key, self.uri)


class Entry(NamedTuple):
    """An object as a listing shows it."""

    key: str
    bytes: int
    modified: datetime  # by the clock of whoever keeps the store


class Store(Protocol):
    """What every store can do. Keys are relative, `/`-separated, without `.` or `..` (ValueError). All may raise StoreError."""

    @property
    def uri(self) -> str:
        """`open_store(store.uri)` is the same store."""
        ...

    def read(self, key: str) -> bytes:
        """The whole object. Raises NotFound."""
        ...

    def read_range(self, key: str, first: int, count: int) -> bytes:
        """`count` bytes of the object from byte `first` on; fewer where it ends sooner. Raises NotFound."""
        ...

    def write(self, key: str, data: bytes, only_if_absent: bool = False) -> bool:
        """Write the object, replacing what was there, or keep that if asked. Returns whether anything was written."""
        ...

    def exists(self, key: str) -> bool:
        """Whether there is an object of that key."""
        ...

    def list(self, prefix: str = "") -> Iterator[str]:
        """Keys that begin with `prefix` (a string, not a folder), sorted."""
        ...

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """As `list`, with sizes and times."""
        ...

    def upload(self, path: Path, key: str) -> None:
        """Write a file of any size."""
        ...

    def download(self, key: str, path: Path) -> None:
        """Copy the object to a file that appears whole or not at all. Raises NotFound; OSError where the file's disk fails."""
        ...

    def delete(self, prefix: str) -> None:
        """Delete everything below `prefix` if it ends with `/`, else the one object of that key; nothing there is fine."""
        ...

    def local_path(self, key: str) -> Path | None:
        """The object as a file of this machine, never to be written to; None where the store is not a folder."""
        ...


def check_writable(store: Store) -> None:
    """Write, read and delete a small object; raises StoreError before anything is spent on results that cannot be kept."""
    key = f"probe-{uuid.uuid4().hex}"
    store.write(key, b"stepchain")
    if store.read(key) != b"stepchain":
        raise StoreError(
            f"the store {store.uri} does not return what was just written: check what serves it"
        )
    store.delete(key)


def write_if_changed(store: Store, key: str, data: bytes) -> bool:
    """Write the object unless it reads so already. Returns whether anything was written."""
    try:
        if store.read(key) == data:
            return False
    except NotFound:
        pass
    return store.write(key, data)


def is_local(store: Store) -> bool:
    """Return True if the store is a folder that this machine sees."""
    return store.local_path("object") is not None


def checked_key(key: str) -> str:
    """`key` itself, or ValueError if it could leave the store or name one object in two ways."""
    if (
        any(part in ("", ".", "..") for part in key.split("/"))
        or "\\" in key
        or "\0" in key
        or key.startswith(TEMPORARY)
    ):
        raise ValueError(
            f"{key!r} is not a key: it must be relative, without empty, '.' or '..' parts"
        )
    return key


READERS = 16  # threads that look into the store, which has as many connections; they do nothing but wait for it
