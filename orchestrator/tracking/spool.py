"""Messages on disk until somebody has taken them: what a process could not deliver, a later one delivers.

Every writer has a file of its own, locked while it lives. A file that can be locked belongs to a process that is gone, so
its messages may be adopted. Nothing is lost by a kill; a message may be delivered twice, so taking it twice must be harmless.
"""

import fcntl
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO


class Spool:
    """The file of one writer. Its first message creates it; `discard` or `keep` ends it. All may raise OSError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: IO[bytes] | None = None

    def append(self, message: str) -> None:
        """Keep a message (one line of text) before anything is tried with it."""
        if self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / f"{uuid.uuid4().hex}.jsonl").open("ab", buffering=0)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file = file
        self._file.write(message.encode() + b"\n")

    def messages(self) -> list[str]:
        """All that was appended, in order."""
        return [] if self._file is None else _whole_lines(Path(self._file.name).read_bytes())

    def discard(self) -> None:
        """All messages were delivered."""
        if self._file is not None:
            os.unlink(self._file.name)
            self.keep()

    def keep(self) -> None:
        """Some messages were not delivered: leave them to whoever adopts them."""
        if self._file is not None:
            self._file.close()
            self._file = None


def adopt(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Files whose writer is gone, each with its messages; delete the file when they are delivered. Locked until the next."""
    for path in sorted(folder.glob("*.jsonl")):
        try:
            file = path.open("rb")
        except FileNotFoundError:  # its adopter has just delivered it
            continue
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield path, _whole_lines(file.read())


def _whole_lines(data: bytes) -> list[str]:
    """Without a last line that a kill cut short."""
    return [line.decode() for line in data.split(b"\n")[:-1]]
