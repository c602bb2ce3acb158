"""Check what this machine needs of others: the store, MLflow and the cluster.

Each check explains how to fix what it finds.
"""

import os
import stat
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from orchestrator.store.base import Store, StoreError, check_writable
from orchestrator.store.open import open_store
from orchestrator.store.retries import DEFAULT_RETRIES
from orchestrator.tracking.tracker import tracking_uri

# Bytes of an object that is uploaded in several parts.
MULTIPART = 33 << 20
# Seconds between two clocks. S3 refuses a client that is 15 minutes off.
FAR_APART = 60
ADDRESS = "RAY_API_SERVER_ADDRESS"


class Finding(NamedTuple):
    """The finding of a check. It has a fix exactly when the check failed."""

    what: str
    found: str
    fix: str = ""


def check_store(uri: str) -> Finding:
    """Write, read, list and delete objects, and check that conditional writes work.

    In a bucket, one object is large enough to be uploaded in parts.
    """
    what = f"store {uri}"
    try:
        store = open_store(uri)
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
    what = f"mlflow {without_password(uri)}"
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        return Finding(what, "a database, made when it is first written")
    from orchestrator.tracking.mlflow_client import RunClient  # MLflow takes seconds to import

    try:
        RunClient(uri)
    except Exception as error:  # noqa: BLE001 - whatever MLflow's transport or database raises
        message = str(error).replace(uri, without_password(uri))
        return Finding(
            what, f"{type(error).__name__}: {message.splitlines()[0][:300]}", _mlflow_fix(message)
        )
    return Finding(what, "answers, and its tables are of this version")


def _mlflow_fix(message: str) -> str:
    """Return how to fix an error with this message."""
    words = message.lower()
    if "database schema" in words:
        return "back up the database, then: mlflow db upgrade URI (with this version of MLflow)"
    if "401" in words or "authenticate" in words or "password" in words:
        return "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    if "403" in words or "host header" in words:
        return "add the name that you call it by to the server's --allowed-hosts, with its port"
    return (
        "start it (mlflow server), or correct --tracking-uri; "
        "training works without it and reports to it later"
    )


def without_password(uri: str) -> str:
    """Return a URI without its password."""
    scheme, slashes, rest = uri.partition("://")
    return f"{scheme}{slashes}{rest.rpartition('@')[2]}"


def token_file() -> Path:
    """Return the path where Ray looks for its token."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def check_token() -> Finding:
    """Check that this machine has a token for Ray that no other user can read."""
    what = "ray's token"
    if os.environ.get("RAY_AUTH_TOKEN"):
        return Finding(what, "in RAY_AUTH_TOKEN")
    path = token_file()
    if not path.exists():
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
    what = f"cluster {without_password(address)}"
    try:
        if _ask(address, None) == 200:
            return Finding(
                what,
                "accepts jobs from anyone who reaches it",
                "start it with RAY_AUTH_MODE=token: a job is any code",
            )
        token = os.environ.get("RAY_AUTH_TOKEN")
        if token is None and (path := token_file()).exists():
            token = path.read_text().strip()
        if token is None or _ask(address, token) != 200:
            return Finding(
                what,
                "refuses our token",
                "take the cluster's token, and set RAY_AUTH_TOKEN_PATH to it",
            )
    except OSError as error:
        return Finding(
            what,
            f"does not answer ({error})",
            f"start it, open the way to it (ssh -L, kubectl port-forward), or correct {ADDRESS}",
        )
    return Finding(
        what,
        "accepts jobs. To check every node: python -m jobs.submit -- python -m jobs.doctor",
    )


def _ask(address: str, token: str | None) -> int:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"{address.rstrip('/')}/api/jobs/", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=DEFAULT_RETRIES.doctor_http_seconds) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def run_check(
    what: str, work: Callable[[], str], errors: tuple[type[Exception], ...], fix: str
) -> Finding:
    """Return what the work finds, or its error with the fix."""
    try:
        return Finding(what, work())
    except errors as error:
        return Finding(what, f"{type(error).__name__}: {error}", fix)
