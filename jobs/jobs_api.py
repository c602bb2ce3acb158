"""Ask the cluster that RAY_API_SERVER_ADDRESS names whether it takes jobs from us."""

import http.client
import json
import os
import urllib.error
import urllib.request
from pathlib import Path

from orchestrator.store.deadline import within
from orchestrator.store.passwords import without_passwords
from orchestrator.store.retries import DEFAULT_RETRIES
from training.config import InputError

ADDRESS = "RAY_API_SERVER_ADDRESS"
LONGEST = 1 << 16  # bytes of an answer that are read


def token_file() -> Path:
    """Return the path where Ray looks for its token."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def own_token() -> str | None:
    """Return the token that Ray would send from here, None without one.

    Raises:
        InputError: The file that RAY_AUTH_TOKEN_PATH names cannot be read, or no token is one line.
    """
    token = os.environ.get("RAY_AUTH_TOKEN")
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = token_file()
    if token is None and (named or path.exists()):
        try:
            token = path.read_text().strip()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it is no text"
            raise InputError(
                f"RAY_AUTH_TOKEN_PATH={path} cannot be read ({why}): set it to the file with the "
                "cluster's token"
            ) from error
    if token is not None and not token.isprintable():
        raise InputError(
            "the token in RAY_AUTH_TOKEN, or in the file of RAY_AUTH_TOKEN_PATH, has a line's end "
            "within: take the cluster's"
        )
    return token


def ask(address: str, token: str | None) -> int:
    """Return the HTTP status by which a dashboard of Ray answers; 0 if no dashboard does.

    Raise OSError, or ValueError for some addresses that are none, without an answer.
    """
    status, _ = _get(f"{address.rstrip('/')}/api/jobs/", token)
    if status != 200:
        return status
    _, version = _get(f"{address.rstrip('/')}/api/version", token)
    try:
        known = json.loads(version)
    except ValueError:
        return 0
    return status if isinstance(known, dict) and "ray_version" in known else 0


def _get(url: str, token: str | None) -> tuple[int, bytes]:
    """Return the status of an answer, and its beginning."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(url, headers=headers)
    patience = DEFAULT_RETRIES.doctor_http_seconds

    def read() -> tuple[int, bytes]:
        with urllib.request.urlopen(request, timeout=patience) as answer:
            return answer.status, answer.read(LONGEST)

    try:
        return within(patience, read)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, b""
    except http.client.InvalidURL as error:
        raise OSError("it is no address") from error
    except http.client.HTTPException as error:
        raise OSError("who answers speaks no HTTP") from error


def check_takes_jobs(address: str) -> None:
    """Raise InputError within 15 s unless the cluster takes jobs from us."""
    shown = f"{ADDRESS}={without_passwords(address)}"
    if not address.startswith(("http://", "https://")) or address != address.strip():
        host = address.rpartition("@")[2]
        raise InputError(
            f"{ADDRESS}={host!r} must be a dashboard's, like http://HOST:8265, without blanks"
        )
    token = own_token()
    try:
        status = ask(address, token)
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
        answer = f" (HTTP {status})" if status else ""
        raise InputError(f"at {shown} answers no dashboard of Ray{answer}: correct {ADDRESS}")
