"""Check the permissions of files."""

import stat
from pathlib import Path


def is_private(path: Path) -> bool:
    """Return whether neither the group nor others have any right to a file."""
    return not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
