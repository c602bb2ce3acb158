"""Where everything published lives: an object store, which is an S3 bucket or just a folder.

A store maps keys such as `steps/0f3a/record.json` to bytes. It promises little, so that any store will do: an object is seen
whole or not at all, and later reads see the last write. Nothing here is a lock; `only_if_absent` is a courtesy that some S3
servers do not honour. A store is a small value that pickles without credentials: each process opens its own connection.
"""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

DEFAULT_STORE = os.environ.get("STEPCHAIN_STORE", "./stepchain-store")
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


def open_store(uri: str) -> Store:
    """The store at a folder's path, `file://` or `s3://bucket/prefix`; touches neither disk nor network.

    S3 takes its credentials, profile, region and endpoint from the AWS_* variables and files that every AWS tool reads,
    never from the URI. Raises StoreError for a URI of another form.
    """
    parts = urlsplit(uri)
    if parts.scheme == "s3":
        from orchestrator.store_s3 import S3Store  # boto3 takes a while to import, and folders do without it

        if "@" in parts.netloc or parts.query:
            raise StoreError(
                "a store's URI is s3://bucket/prefix and holds no credentials: set AWS_ACCESS_KEY_ID or AWS_PROFILE"
            )
        if not parts.netloc:
            raise StoreError(f"{uri!r} names no bucket: a store's URI is s3://bucket/prefix")
        return S3Store(parts.netloc, parts.path.strip("/"))
    if parts.scheme == "file":
        return FolderStore(Path(unquote(parts.path)).resolve())
    if "://" in uri or not uri:
        raise StoreError(f"{uri!r} is not a store: give a folder, file:///folder or s3://bucket/prefix")
    return FolderStore(Path(uri).expanduser().resolve())


def check_writable(store: Store) -> None:
    """Write, read and delete a small object; raises StoreError before anything is spent on results that cannot be kept."""
    key = f"probe-{uuid.uuid4().hex}"
    store.write(key, b"stepchain")
    if store.read(key) != b"stepchain":
        raise StoreError(f"the store {store.uri} does not return what was just written: check what serves it")
    store.delete(key)


def write_if_changed(store: Store, key: str, data: bytes) -> bool:
    """Write the object unless it reads so already. Returns whether anything was written."""
    try:
        if store.read(key) == data:
            return False
    except NotFound:
        pass
    return store.write(key, data)


def checked_key(key: str) -> str:
    """`key` itself, or ValueError if it could leave the store or name one object in two ways."""
    if any(part in ("", ".", "..") for part in key.split("/")) or "\\" in key or "\0" in key or key.startswith(TEMPORARY):
        raise ValueError(f"{key!r} is not a key: it must be relative, without empty, '.' or '..' parts")
    return key


@dataclass(frozen=True)
class FolderStore:
    """A store in a folder, on a disk of this machine or one that all machines share. Deleting leaves empty folders behind."""

    root: Path

    @property
    def uri(self) -> str:
        return str(self.root)

    def read(self, key: str) -> bytes:
        with self._explained("read", key):
            return self._file(key).read_bytes()

    def read_range(self, key: str, first: int, count: int) -> bytes:
        with self._explained("read", key), self._file(key).open("rb") as file:
            file.seek(first)
            return file.read(count)

    def write(self, key: str, data: bytes, only_if_absent: bool = False) -> bool:
        with self._explained("write", key), self._replacing(self._file(key)) as temporary:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if only_if_absent:
                try:
                    os.link(temporary, self._file(key))  # unlike a rename, fails where there is a file already
                except FileExistsError:
                    return False
            else:
                os.replace(temporary, self._file(key))
        return True

    def exists(self, key: str) -> bool:
        with self._explained("look for", key):
            return self._file(key).is_file()

    def list(self, prefix: str = "") -> Iterator[str]:
        if prefix:
            checked_key(prefix.removesuffix("/"))
        top = self.root / prefix.rpartition("/")[0]
        keys = []
        with self._explained("list", prefix):
            for folder, folders, names in os.walk(top, onerror=_raise_unless_absent):
                if Path(folder) == self.root and TEMPORARY in folders:
                    folders.remove(TEMPORARY)
                keys.extend((Path(folder) / name).relative_to(self.root).as_posix() for name in names)
        return iter(sorted(key for key in keys if key.startswith(prefix)))

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        for key in self.list(prefix):
            with self._explained("look at", key), contextlib.suppress(FileNotFoundError):  # deleted since
                status = self._file(key).stat()
                yield Entry(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    def upload(self, path: Path, key: str) -> None:
        with self._explained("write", key), self._replacing(self._file(key)) as temporary:
            with path.open("rb") as source, temporary.open("xb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._file(key))

    def download(self, key: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            with contextlib.ExitStack() as opened:
                with self._explained("read", key):
                    source = opened.enter_context(self._file(key).open("rb"))
                with temporary.open("xb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def delete(self, prefix: str) -> None:
        keys = self.list(prefix) if prefix.endswith("/") else [checked_key(prefix)]
        for key in keys:
            with self._explained("delete", key):
                self._file(key).unlink(missing_ok=True)

    def local_path(self, key: str) -> Path | None:
        return self._file(key)

    def _file(self, key: str) -> Path:
        return self.root / checked_key(key)

    @contextlib.contextmanager
    def _replacing(self, target: Path) -> Iterator[Path]:
        """A new name in the store's own file system, for what is then moved to `target`."""
        temporary = self.root / TEMPORARY / uuid.uuid4().hex
        temporary.parent.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _explained(self, action: str, key: str) -> Iterator[None]:
        """Turn the operating system's errors into the store's."""
        try:
            yield
        except OSError as error:
            if action == "read" and isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError):
                raise NotFound(key, self.uri) from error
            reason = error.strerror or error
            raise StoreError(
                f"cannot {action} {key!r} in the store {self.uri} ({reason}): check the folder, its rights and its disk"
            ) from error


def _raise_unless_absent(error: OSError) -> None:
    """For `os.walk`, which would pass over a folder that may not be read: a listing is whole or an error."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
