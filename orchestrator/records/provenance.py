"""Describe where a result came from: code, versions, person, machine and time.

Every record holds this, and no key does. Only named facts are taken, never the environment or a
path, so that no secret gets into a record. Code that travels to a cluster (`ray job submit
--working-dir`) leaves its .git behind. The job that submits it passes git's answers in COMMIT and
DIRTY.
"""

import getpass
import hashlib
import json
import os
import platform
import re
import socket
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path

from orchestrator.records.schema import Provenance

PACKAGES = ("stepchain", "torch", "ray", "mlflow", "numpy", "pyarrow", "transformers")
SOURCES = ("orchestrator", "training", "stepchain", "jobs")
ROOT = Path(__file__).parents[2]
# Variables of the environment that pass the version of the code to a submitted job.
COMMIT = "STEPCHAIN_COMMIT"
DIRTY = "STEPCHAIN_DIRTY"


def provenance(device: str, root: Path | None = None) -> Provenance:
    """Return the provenance of a result that is made now.

    Args:
        device: The device that makes it, such as `cpu` or a GPU's name.
        root: Folder of the code that makes it; by default the code that this process runs.
    """
    commit, dirty = code_version(root) if root else _own_version()
    return Provenance(
        commit=commit,
        dirty=dirty,
        versions=_versions(),
        user=_user(),
        host=socket.gethostname(),
        device=device,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def code_version(root: Path = ROOT) -> tuple[str | None, str | None]:
    """Return the commit of the code below `root`, and a digest of its difference from the commit.

    Each is None if there is none or it is not known.
    """
    commit = _commit(root)
    if commit:
        return commit, _dirty(root)
    return _passed(COMMIT), _passed(DIRTY)


@cache
def _own_version() -> tuple[str | None, str | None]:
    """Return the version of the code that this process runs.

    Git is asked once: what is edited later is not what runs here. Four calls of git for each record
    were half of what a small step costs.
    """
    return code_version()


def submission() -> str | None:
    """Return the name of the Ray job that this process runs for, or None elsewhere."""
    config = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    return config.get("metadata", {}).get("job_submission_id")


def _passed(variable: str) -> str | None:
    """Return the digest that the submitting job passed in a variable of the environment."""
    value = os.environ.get(variable, "")
    return value if re.fullmatch("[0-9a-f]{40,64}", value) else None


def _commit(root: Path) -> str | None:
    """Return the commit checked out at `root`.

    Return None outside git, and if `root` merely lies in the repository of another project.
    """
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top.decode().strip()).resolve() != root.resolve():
        return None
    commit = _git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    return commit.decode().strip() if commit else None


def _dirty(root: Path) -> str | None:
    """Return a digest of how the code differs from its commit, new files included, or None."""
    difference = _git(root, "diff", "--binary", "--no-ext-diff", "HEAD", "--", *SOURCES) or b""
    new = _git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", *SOURCES) or b""
    names = [name for name in new.split(b"\0") if name]
    if not difference and not names:
        return None
    total = hashlib.sha256(difference)
    for name in names:
        content = (root / os.fsdecode(name)).read_bytes()
        total.update(name + b"\0" + hashlib.sha256(content).digest())
    return total.hexdigest()


def _git(root: Path, *arguments: str) -> bytes | None:
    """Return what git prints, or None if git fails or is not installed."""
    try:
        result = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, check=False
        )
    except FileNotFoundError:
        return None
    return result.stdout if result.returncode == 0 else None


@cache
def _versions() -> dict[str, str]:
    """Return the versions of packages, which are read once: that takes longer than a small step."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            # The code runs from a folder, as in a Ray working_dir.
            continue
    return versions


def person() -> str:
    """Return the user and the host of this process: `user@host`."""
    return f"{_user()}@{socket.gethostname()}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A user of a container may have no name.
        return str(os.getuid())
