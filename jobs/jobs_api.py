"""Ask the cluster that RAY_API_SERVER_ADDRESS names whether it takes jobs from us."""

import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path

from orchestrator.store.passwords import without_passwords
from orchestrator.store.retries import DEFAULT_RETRIES
from training.config import InputError

ADDRESS = "RAY_API_SERVER_ADDRESS"


def token_file() -> Path:
    """Return the path where Ray looks for its token."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def own_token() -> str | None:
    """Return the token that Ray would send from here, None without one."""
    token = os.environ.get("RAY_AUTH_TOKEN")
    if token is None and (path := token_file()).exists():
        token = path.read_text().strip()
    return token


def ask(address: str, token: str | None) -> int:
    """Return the HTTP status by which the cluster answers.

    Raise OSError, or ValueError for some addresses that are none, without an answer.
    """
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"{address.rstrip('/')}/api/jobs/", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=DEFAULT_RETRIES.doctor_http_seconds) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except http.client.InvalidURL as error:
        raise OSError("it is no address") from error
    except http.client.HTTPException as error:
        raise OSError("who answers speaks no HTTP") from error


def check_takes_jobs(address: str) -> None:
    """Raise InputError within 15 s unless the cluster takes jobs from us."""
    shown = f"{ADDRESS}={without_passwords(address)}"
    if not address.startswith(("http://", "https://")):
        host = address.rpartition("@")[2]
        raise InputError(f"{ADDRESS}={host} must be a dashboard's, like http://HOST:8265")
    try:
        status = ask(address, own_token())
    except (OSError, ValueError) as error:
        why = without_passwords(str(error))
        raise InputError(
            f"{shown} does not answer ({why}): start the cluster, open the way to it "
            f"(ssh -L, kubectl port-forward), or correct {ADDRESS}"
        ) from error
    if status in (401, 403):
        raise InputError(
            f"the cluster at {shown} refuses our token: take the cluster's, and set "
            "RAY_AUTH_TOKEN_PATH to it"
        )
    if status != 200:
        raise InputError(
            f"at {shown} answers no dashboard of Ray (HTTP {status}): correct {ADDRESS}"
        )
