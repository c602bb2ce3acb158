"""Where a result came from: code, versions, person, machine and time. Recorded with every result, part of no key.

Only named facts are taken, never the environment or a path, so that no secret can slip into a record. Code that travels to a
cluster (`ray job submit --working-dir`) leaves its .git at home: whoever submits says in COMMIT and DIRTY what git said there.
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
from importlib import metadata
from pathlib import Path

from orchestrator.records.schema import Provenance

PACKAGES = ("stepchain", "torch", "ray", "mlflow", "numpy", "pyarrow")
SOURCES = ("orchestrator", "training", "stepchain", "jobs")
COMMIT, DIRTY = "STEPCHAIN_COMMIT", "STEPCHAIN_DIRTY"  # variables of the environment


def provenance(device: str, root: Path = Path(__file__).parents[2]) -> Provenance:
    """The provenance of what is made now, by the code below `root`, on `device` (such as `cpu` or a GPU's name)."""
    commit, dirty = code_version(root)
    return Provenance(
        commit=commit,
        dirty=dirty,
        versions=_versions(),
        user=_user(),
        host=socket.gethostname(),
        device=device,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def code_version(root: Path = Path(__file__).parents[2]) -> tuple[str | None, str | None]:
    """The commit of the code below `root`, and a digest of how the code differs from it; None: it does not, or nobody knows."""
    commit = _commit(root)
    if commit:
        return commit, _dirty(root)
    told = (os.environ.get(name, "") for name in (COMMIT, DIRTY))
    commit, dirty = (value if re.fullmatch("[0-9a-f]{40,64}", value) else None for value in told)
    return commit, dirty


def submission() -> str | None:
    """What the job is called that Ray started this process for (`ray job submit`); None elsewhere."""
    return (
        json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
        .get("metadata", {})
        .get("job_submission_id")
    )


def _commit(root: Path) -> str | None:
    """The commit checked out at `root`; None outside git, and where another project's repository merely surrounds the code."""
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top.decode().strip()).resolve() != root.resolve():
        return None
    commit = _git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    return commit.decode().strip() if commit else None


def _dirty(root: Path) -> str | None:
    """Digest of how the code differs from its commit, new files included; None when it does not."""
    difference = _git(root, "diff", "--binary", "--no-ext-diff", "HEAD", "--", *SOURCES) or b""
    new = _git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", *SOURCES) or b""
    names = [name for name in new.split(b"\0") if name]
    if not difference and not names:
        return None
    total = hashlib.sha256(difference)
    for name in names:
        total.update(
            name + b"\0" + hashlib.sha256((root / os.fsdecode(name)).read_bytes()).digest()
        )
    return total.hexdigest()


def _git(root: Path, *arguments: str) -> bytes | None:
    """What git prints, or None where there is no git, no repository or no such thing."""
    try:
        result = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, check=False
        )
    except FileNotFoundError:
        return None
    return result.stdout if result.returncode == 0 else None


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except (
            metadata.PackageNotFoundError
        ):  # the code runs from a folder, as in a Ray working_dir
            continue
    return versions


def person() -> str:
    """Who works here: `user@host`."""
    return f"{_user()}@{socket.gethostname()}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())
