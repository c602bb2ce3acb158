"""Keep messages on disk until they are delivered, by this process or by a later one.

Every writer has its own file, which it locks as long as it lives. A file that can be locked belongs
to a process that has ended, so another process may take over its messages. A kill loses nothing. A
message may be delivered twice, so the receiver must accept duplicates. On a file system without
locks, a file belongs to a process that has ended when nobody wrote to it for an hour.
"""

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from orchestrator.store.locks import NoLocks, lock

# Seconds after which a file belongs to a process that has ended, where there are no locks.
UNTOUCHED = 3600


class Spool:
    """The spool file of one writer. The first message creates it; `discard` or `keep` closes it.

    Every method may raise OSError.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: IO[bytes] | None = None

    def append(self, message: str) -> None:
        """Write a message, one line of text, before it is sent."""
        if self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / f"{uuid.uuid4().hex}.jsonl").open("ab", buffering=0)
            with suppress(NoLocks):
                lock(file, wait=False)
            self._file = file
        self._file.write(message.encode() + b"\n")

    def messages(self) -> list[str]:
        """Return all messages that were appended, in order."""
        if self._file is None:
            return []
        return _whole_lines(Path(self._file.name).read_bytes())

    def discard(self) -> None:
        """Delete the file, because all messages were delivered."""
        if self._file is not None:
            os.unlink(self._file.name)
            self.keep()

    def keep(self) -> None:
        """Close the file and leave it to a later process, because messages are left in it."""
        if self._file is not None:
            self._file.close()
            self._file = None


def abandoned_messages(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield each file whose writer has ended, and its messages.

    The caller deletes a file when its messages are delivered. A file stays locked until the caller
    asks for the next one.
    """
    # A name of ours is hexadecimal: macOS leaves ._NAME.jsonl beside files.
    for path in sorted(folder.glob("[0-9a-f]*.jsonl")):
        try:
            file = path.open("rb")
        except FileNotFoundError:
            # Another process has just delivered it.
            continue
        with file:
            try:
                lock(file, wait=False)
            except BlockingIOError:
                continue
            except NoLocks:
                if time.time() - path.stat().st_mtime < UNTOUCHED:
                    continue
            yield path, _whole_lines(file.read())


def _whole_lines(data: bytes) -> list[str]:
    """Return the lines, without a last one that a kill cut short."""
    return [line.decode() for line in data.split(b"\n")[:-1]]
