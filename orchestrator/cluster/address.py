"""Check that a Ray cluster answers where RAY_ADDRESS says, because Ray itself would wait minutes.

The head of a cluster speaks gRPC, so it answers the opening of HTTP/2 with its settings. Whoever
answers otherwise, or not at all, is no head.
"""

import os
import socket
from contextlib import suppress

from orchestrator.store.retries import DEFAULT_RETRIES
from training.config import InputError

# The client's opening, and an empty frame of settings.
OPENING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
SETTINGS = 4  # the type of a frame, its fourth byte
ADVICE = (
    "set RAY_ADDRESS to HOST:PORT of the cluster's head (ray start prints it, usually port 6379), "
    "or unset it to train on this machine alone"
)


def check_address(address: str, seconds: float = DEFAULT_RETRIES.first_answer_seconds) -> None:
    """Raise InputError within 15 s unless the head of a Ray cluster answers at this address.

    Args:
        address: HOST:PORT, or `auto` for the cluster that runs on this machine.
        seconds: How long a connection, and the answer, may take.
    """
    scheme, separator, _ = address.partition("://")
    if separator:
        what = "Ray Client's" if scheme == "ray" else "a dashboard's"
        raise InputError(
            f"RAY_ADDRESS={address} is {what} address, by which no job can drive the cluster: "
            "submit the job instead (RAY_API_SERVER_ADDRESS=http://HOST:8265, python -m "
            f"jobs.submit), or run it on a machine of the cluster and {ADVICE}"
        )
    found = _running_here() if address == "auto" else address
    shown = address if found == address else f"{address} ({found})"
    host, _, port = found.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()):
        raise InputError(f"RAY_ADDRESS={shown} is no address: {ADVICE}")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), seconds) as connection:
            # Behind TLS, only Ray knows the certificates.
            answers = os.environ.get("RAY_USE_TLS") == "1" or _speaks_grpc(connection)
    except (OSError, OverflowError, UnicodeError) as error:  # the last of a host that is no name
        raise InputError(f"RAY_ADDRESS={shown} does not answer ({error}): {ADVICE}") from error
    if not answers:
        raise InputError(f"at RAY_ADDRESS={shown} answers no Ray cluster: {ADVICE}")


def _speaks_grpc(connection: socket.socket) -> bool:
    """Return whether the other side opens HTTP/2, within the connection's time limit."""
    frame = b""
    with suppress(OSError):
        connection.sendall(OPENING)
        while len(frame) < 4 and (more := connection.recv(64)):
            frame += more
    return len(frame) >= 4 and frame[3] == SETTINGS


def _running_here() -> str:
    """Return the address of the cluster that runs on this machine."""
    from ray._private.services import canonicalize_bootstrap_address_or_die

    try:
        return canonicalize_bootstrap_address_or_die("auto")
    except ConnectionError as error:
        # There is none, or there are several.
        reason = str(error).partition(".")[0]
        raise InputError(f"RAY_ADDRESS=auto: {reason}: {ADVICE}") from error
