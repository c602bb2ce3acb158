"""Check what this machine needs of others: the store, MLflow and the cluster.

Each check explains how to fix what it finds.
"""

import os
import stat
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from jobs.jobs_api import ADDRESS, ask, own_token, token_file
from orchestrator.store.base import Store, StoreError, check_writable
from orchestrator.store.open import open_store
from orchestrator.store.passwords import without_passwords
from orchestrator.tracking.mlflow_database import sqlite_file
from orchestrator.tracking.mlflow_errors import MlflowError, Unreachable
from orchestrator.tracking.tracker import tracking_uri
from training.config import InputError

# Bytes of an object that is uploaded in several parts.
MULTIPART = 33 << 20
# Seconds between two clocks. S3 refuses a client that is 15 minutes off.
FAR_APART = 60


class Finding(NamedTuple):
    """The finding of a check. It has a fix exactly when the check failed."""

    what: str
    found: str
    fix: str = ""
    limited: bool = False  # it works, but for what is said


def check_store(uri: str) -> Finding:
    """Write, read, list and delete objects, and check that conditional writes work.

    In a bucket, one object is large enough to be uploaded in parts.
    """
    what = f"store {uri}"
    try:
        store = open_store(uri)
        store.check_answers()
        check_writable(store)
        folder = f"probe-{uuid.uuid4().hex}"
        try:
            return Finding(what, *_probe(store, folder))
        finally:
            store.delete(f"{folder}/")
    except StoreError as error:
        return Finding(what, "failed", str(error))


def _probe(store: Store, folder: str) -> tuple[str, str]:
    """Return what was found, and how to fix it."""
    key = f"{folder}/condition"
    first, second = (store.write(key, data, only_if_absent=True) for data in (b"first", b"second"))
    if not first or second or store.read(key) != b"first":
        return "overwrites what it was asked to keep", (
            "use a server that knows conditional writes (If-None-Match); "
            "without them results stay right, but steps may train twice"
        )
    found = {entry.key: entry for entry in store.entries(f"{folder}/")}
    if key not in found:
        return (
            "does not list what was just written",
            "give the keys the right to list the bucket (s3:ListBucket), or the folder to read",
        )
    apart = abs(found[key].modified.timestamp() - time.time())
    if apart > FAR_APART:
        return (
            f"its clock is {apart:.0f} s from this machine's",
            "set both clocks by NTP: timedatectl set-ntp true",
        )
    if store.local_path(key) is not None:
        return "writes, on a condition too, reads, lists and deletes", ""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "large")
        with path.open("wb") as file:
            file.truncate(MULTIPART)
        store.upload(path, f"{folder}/large")
    if {entry.key: entry.bytes for entry in store.entries(f"{folder}/")}.get(
        f"{folder}/large"
    ) != MULTIPART:
        return (
            "loses parts of a large object",
            "give the keys the right to multipart uploads, or use another server",
        )
    return "writes, on a condition too, reads, lists and deletes; large objects in parts", ""


def check_mlflow(store: str, uri: str | None) -> Finding:
    """Check that MLflow answers, accepts us, and has the tables that this version needs."""
    try:
        uri = tracking_uri(open_store(store), uri)
    except StoreError as error:
        return Finding("mlflow", str(error), "fix the store first")
    what = f"mlflow {without_passwords(uri)}"
    if uri.startswith("sqlite:///") and not sqlite_file(uri).exists():
        return Finding(what, "a database, made when it is first written")
    from orchestrator.tracking.mlflow_client import RunClient  # MLflow takes seconds to import

    try:
        client = RunClient(uri)
    except Unreachable as error:
        later = "training works without it and reports to it later"
        return Finding(what, "does not answer", f"{error}; {later}")
    except MlflowError as error:
        return Finding(what, "cannot be used", str(error))
    if not client.shows_models:
        return Finding(
            what,
            "answers, and is older than version 3: its runs do not show which model came from "
            "which, and everything else works",
            limited=True,
        )
    return Finding(what, "answers, and its tables are of this version")


def check_token() -> Finding:
    """Check that this machine has a token for Ray that no other user can read."""
    what = "ray's token"
    if os.environ.get("RAY_AUTH_TOKEN"):
        return Finding(what, "in RAY_AUTH_TOKEN")
    path = token_file()
    if not path.is_file():
        if os.environ.get("RAY_AUTH_MODE") == "token" or os.environ.get(ADDRESS):
            return Finding(
                what,
                f"there is none at {path}",
                "set RAY_AUTH_TOKEN_PATH to the cluster's token, see infra/README.md",
            )
        return Finding(what, "none; a cluster on this machine makes its own")
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return Finding(what, f"others can read {path}", f"chmod 600 {path}")
    return Finding(what, f"in {path}")


def check_jobs_api(address: str) -> Finding:
    """Check that jobs can be submitted there, with a token and not without."""
    what = f"cluster {without_passwords(address)}"
    try:
        if ask(address, None) == 200:
            return Finding(
                what,
                "accepts jobs from anyone who reaches it",
                "start it with RAY_AUTH_MODE=token: a job is any code",
            )
        token = own_token()
        status = ask(address, token)
        if status in (401, 403):
            return Finding(
                what,
                "refuses our token",
                "take the cluster's token, and set RAY_AUTH_TOKEN_PATH to it",
            )
        if status != 200:
            return Finding(what, "answers no dashboard of Ray", f"correct {ADDRESS}")
    except InputError as error:  # of the token
        return Finding(what, "was not asked", str(error))
    except (OSError, ValueError) as error:
        return Finding(
            what,
            f"does not answer ({without_passwords(str(error))})",
            f"start it, open the way to it (ssh -L, kubectl port-forward), or correct {ADDRESS}",
        )
    return Finding(
        what,
        "accepts jobs. To check every node: python -m jobs.submit -- python -m jobs.doctor",
    )


def run_check(
    what: str, work: Callable[[], str], errors: tuple[type[Exception], ...], fix: str
) -> Finding:
    """Return what the work finds, or its error with the fix."""
    try:
        return Finding(what, work())
    except InputError as error:  # it says what to do
        return Finding(what, "cannot be used", str(error))
    except errors as error:
        return Finding(what, f"{type(error).__name__}: {error}", fix)
