"""Keep a store in a folder of a disk."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.store.base import (
    TEMPORARY,
    Entry,
    NotFound,
    StoreError,
    checked_key,
    is_litter,
)
from orchestrator.store.retries import DEFAULT_RETRIES, Retries


@dataclass(frozen=True)
class FolderStore:
    """A store in a folder, on a disk of this machine or one that all machines share.

    Deleting objects leaves empty folders behind.
    """

    root: Path
    retries: Retries = field(default=DEFAULT_RETRIES, compare=False, repr=False)

    @property
    def uri(self) -> str:
        return str(self.root)

    def check_answers(self) -> None:
        with self._explained("look at", "."):
            if self.root.exists():
                next(self.root.iterdir(), None)

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
                    # Unlike a rename, a link fails if the file exists.
                    os.link(temporary, self._file(key))
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
        parent, _, start = prefix.rpartition("/")
        top = str(self.root / parent)
        keys = []
        with self._explained("list", prefix):
            for folder, folders, names in os.walk(top, onerror=_raise_unless_absent):
                if folder == top:
                    # Other folders need not be looked at.
                    folders[:] = [
                        name for name in folders if name.startswith(start) and name != TEMPORARY
                    ]
                inside = os.path.relpath(folder, self.root)
                above = "" if inside == "." else f"{inside}/"
                keys.extend(above + name for name in names)
        return iter(sorted(key for key in keys if key.startswith(prefix) and not is_litter(key)))

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        for key in self.list(prefix):
            # The object may have been deleted since it was listed.
            with self._explained("look at", key), contextlib.suppress(FileNotFoundError):
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

    def half_written_files(self) -> tuple[Path, ...]:
        """Return the files that are being written, and those that killed processes left."""
        return tuple(each for each in self.root.glob(f"{TEMPORARY}/*") if each.is_file())

    def _file(self, key: str) -> Path:
        return self.root / checked_key(key)

    @contextlib.contextmanager
    def _replacing(self, target: Path) -> Iterator[Path]:
        """Give a new path in the store's own file system, from which a file moves to `target`."""
        temporary = self.root / TEMPORARY / uuid.uuid4().hex
        temporary.parent.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _explained(self, action: str, key: str) -> Iterator[None]:
        """Turn errors of the operating system into the store's."""
        try:
            yield
        except OSError as error:
            if action == "read" and isinstance(
                error, FileNotFoundError | IsADirectoryError | NotADirectoryError
            ):
                raise NotFound(key, self.uri) from error
            reason = error.strerror or error
            raise StoreError(
                f"cannot {action} {key!r} in the store {self.uri} ({reason}): "
                "check the folder, its rights and its disk"
            ) from error


def _raise_unless_absent(error: OSError) -> None:
    """Raise an error of `os.walk`, which would pass over a folder that cannot be read."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
