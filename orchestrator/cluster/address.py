"""Check that a Ray cluster answers where RAY_ADDRESS says, because Ray itself would wait minutes.

The head of a cluster speaks gRPC, so it answers the opening of HTTP/2 with its settings. Whoever
answers otherwise, or not at all, is no head.
"""

import os
import socket
from contextlib import suppress
from typing import Any

from orchestrator.store.passwords import without_passwords
from orchestrator.store.retries import DEFAULT_RETRIES
from training.config import InputError

# The client's opening, and an empty frame of settings.
OPENING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
SETTINGS = 4  # the type of a frame, its fourth byte
ADVICE = (
    "set RAY_ADDRESS to HOST:PORT of the cluster's head (ray start prints it, usually port 6379), "
    "or unset it to train on this machine alone"
)
NO_CLUSTER = f"answers no Ray cluster: {ADVICE}"
NO_TOKEN = (
    "a cluster refuses our token: take the cluster's, set RAY_AUTH_TOKEN_PATH to it, and "
    "RAY_AUTH_MODE=token"
)


def check_address(address: str, seconds: float = DEFAULT_RETRIES.first_answer_seconds) -> None:
    """Raise InputError within 15 s unless the head of a Ray cluster answers at this address.

    Args:
        address: HOST:PORT, or `auto` for the cluster that runs on this machine.
        seconds: How long a connection, and the answer, may take.
    """
    if address != address.strip():
        raise InputError(f"RAY_ADDRESS={address!r} has a blank at its beginning or end: {ADVICE}")
    scheme, separator, _ = address.partition("://")
    if separator:
        what = "Ray Client's" if scheme == "ray" else "a dashboard's"
        raise InputError(
            f"RAY_ADDRESS={without_passwords(address)} is {what} address, by which no job can "
            "drive the cluster: "
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
    problem = _problem_of_head(found, seconds) if answers else NO_CLUSTER
    if problem:
        raise InputError(f"at RAY_ADDRESS={shown} {problem}")


def _speaks_grpc(connection: socket.socket) -> bool:
    """Return whether the other side opens HTTP/2, within the connection's time limit."""
    frame = b""
    with suppress(OSError):
        connection.sendall(OPENING)
        while len(frame) < 4 and (more := connection.recv(64)):
            frame += more
    return len(frame) >= 4 and frame[3] == SETTINGS


def _problem_of_head(address: str, seconds: float) -> str | None:
    """Return why a server of gRPC is no head that takes us, None if it may be one.

    Ray Client's port, for one, lacks the service of a head.
    """
    import grpc
    from ray._private.grpc_utils import init_grpc_channel  # with Ray's certificates and token
    from ray.exceptions import AuthenticationError

    opened: Any = init_grpc_channel(address, [("grpc.enable_http_proxy", 0)])
    with opened as channel:
        ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")
        try:
            ask(b"", timeout=seconds)
        except grpc.RpcError as error:
            problems = {
                grpc.StatusCode.UNIMPLEMENTED: NO_CLUSTER,
                grpc.StatusCode.UNAUTHENTICATED: NO_TOKEN,
            }
            return problems.get(error.code())
        except AuthenticationError:
            pass  # there is no token, as Ray will say itself
    return None


def _running_here() -> str:
    """Return the address of the cluster that runs on this machine."""
    from ray._private.services import canonicalize_bootstrap_address_or_die

    try:
        return canonicalize_bootstrap_address_or_die("auto")
    except ConnectionError as error:
        # There is none, or there are several.
        reason = str(error).partition(".")[0]
        raise InputError(f"RAY_ADDRESS=auto: {reason}: {ADVICE}") from error
