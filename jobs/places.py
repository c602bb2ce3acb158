"""Check that a job can write where it will have to, and explain why it could not.

A job that writes a report, predictions or lists calls `checked_folder` before anything is spent.
"""

import errno
import os
import shutil
import tempfile
from pathlib import Path
from tempfile import TemporaryFile

from orchestrator.store.cache import default_cache
from orchestrator.store.cache_folder import FULL
from training.config import InputError

# Something of another kind is where a file or a folder is to be.
IN_THE_WAY = {errno.EEXIST, errno.EISDIR, errno.ENOTDIR}
# What the machine refuses, and no code can mend: rights, disks, limits.
REFUSED = (
    FULL
    | IN_THE_WAY
    | {
        errno.EACCES,
        errno.EIO,
        errno.EMFILE,
        errno.ENAMETOOLONG,
        errno.ENFILE,
        errno.EPERM,
        errno.EROFS,
        errno.ESTALE,
    }
)


def checked_folder(folder: Path, option: str = "--out") -> Path:
    """Make a folder for results, write to it, and return it.

    Args:
        folder: A `~` at its beginning is the user's home.
        option: The option that names the folder.

    Raises:
        InputError: The folder cannot be made or written to.
    """
    folder = folder.expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as file:
            file.write(b"stepchain")
    except OSError as error:
        in_the_way = next(filter(os.path.isfile, (folder, *folder.parents)), None)
        if in_the_way:
            raise InputError(
                f"{option} {folder} cannot be a folder, because {in_the_way} is a file"
            ) from error
        raise InputError(
            f"cannot write to {option} {folder} ({error.strerror or error}): name another folder"
        ) from error
    return folder


def describe_refusal(error: OSError) -> str | None:
    """Return in a sentence what the machine refused, or None for any other error."""
    if error.errno not in REFUSED:
        return None
    reason = os.strerror(error.errno)
    if error.errno in FULL:
        where = f" at {error.filename}" if error.filename else ""
        return f"a disk is full ({reason}){where}: make room, then run it again; {_free_space()}"
    if error.filename is None:
        return f"the machine refused to go on ({reason}): run it again when that is mended"
    if error.errno in IN_THE_WAY:
        return (
            f"cannot write {error.filename} ({reason}): move away what is there, or name another "
            "folder"
        )
    return f"cannot use {error.filename} ({reason}): check its rights and its disk"


def _free_space() -> str:
    """Return how much is free in the folders that variables of the environment may move."""
    places = {
        "temporary folder": (Path(tempfile.gettempdir()), "TMPDIR"),
        "cache": (default_cache(), "STEPCHAIN_CACHE"),
    }
    words = []
    for name, (folder, variable) in places.items():
        there = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(there).free / 1e6
        words.append(f"the {name} {folder} has {free:,.1f} MB free ({variable} names another)")
    return "; ".join(words)
