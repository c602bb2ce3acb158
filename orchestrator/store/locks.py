"""Lock files, so that processes take turns. Some network file systems have no locks."""

import errno
import fcntl
from typing import IO, Any

# What the system answers where a file system has no locks, or its lock server does not run.
WITHOUT = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}


class NoLocks(Exception):
    """The file system of a file has no locks. The message says which and why."""


def lock(file: IO[Any], shared: bool = False, wait: bool = True) -> None:
    """Lock a file until it is closed or its process ends.

    Args:
        file: The open file.
        shared: Whether others may share the lock.
        wait: Whether to wait for others.

    Raises:
        BlockingIOError: Another process holds the lock, and `wait` is False.
        NoLocks: The file system has none.
    """
    operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, operation if wait else operation | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in WITHOUT:
            raise
        raise NoLocks(f"the file system of {file.name} has no locks ({error.strerror})") from error


def unlock(file: IO[Any]) -> None:
    """Give a lock back. Closing the file is not enough if a process was forked meanwhile."""
    fcntl.flock(file, fcntl.LOCK_UN)
