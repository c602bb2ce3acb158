"""An address of Ray at which no cluster answers is refused within seconds, by its variable."""

import http.server
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from orchestrator.cluster import connection
from orchestrator.cluster.address import OPENING, check_address
from training.config import InputError


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("http://127.0.0.1:8265", "is a dashboard's address.*RAY_API_SERVER_ADDRESS"),
        ("ray://127.0.0.1:10001", "is Ray Client's address.*RAY_API_SERVER_ADDRESS"),
        ("somewhere", "RAY_ADDRESS=somewhere is no address: set RAY_ADDRESS to HOST:PORT"),
        ("127.0.0.1:²", "RAY_ADDRESS=127.0.0.1:² is no address: set RAY_ADDRESS to HOST:PORT"),
        ("127.0.0.1:99999", "does not answer"),
        ("head..lab:6379", r"RAY_ADDRESS=head\.\.lab:6379 does not answer .*: set RAY_ADDRESS to"),
        ("no-such-host.invalid:6379", "does not answer"),
    ],
)
def test_an_address_of_another_kind_is_refused(address: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        check_address(address)


def test_nobody_and_somebody_mute_are_refused_soon() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(InputError, match="answers no Ray cluster"):
            check_address(address, seconds=0.2)
    with pytest.raises(InputError, match=r"does not answer .*or unset it"):
        check_address(address, seconds=0.2)
    assert time.monotonic() - began < 5


def test_a_website_is_no_cluster() -> None:
    handler = http.server.SimpleHTTPRequestHandler
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        with pytest.raises(InputError, match="answers no Ray cluster: set RAY_ADDRESS"):
            check_address(f"127.0.0.1:{server.server_port}")
        server.shutdown()


def test_a_server_that_opens_http2_may_be_a_head() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with server.accept()[0] as accepted:
                opened.append(accepted.recv(len(OPENING)))
                accepted.sendall(bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))

        opened: list[bytes] = []
        head = threading.Thread(target=answer)
        head.start()
        check_address(f"127.0.0.1:{server.getsockname()[1]}")
        head.join()
        assert opened[0].startswith(b"PRI * HTTP/2.0")


class Strangers(grpc.GenericRpcHandler):
    """Refuses every call, as a head does to those without its token."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        def refuse(request: bytes, context: grpc.ServicerContext) -> None:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "")

        return grpc.unary_unary_rpc_method_handler(refuse)


@pytest.mark.parametrize(
    ("handlers", "sentence"),
    [
        ([], "answers no Ray cluster: set RAY_ADDRESS to HOST:PORT"),  # as Ray Client's port
        ([Strangers()], "a cluster refuses our token: .* set RAY_AUTH_TOKEN_PATH"),
    ],
)
def test_a_server_of_grpc_that_is_no_head_of_ours_is_refused(
    monkeypatch: pytest.MonkeyPatch, handlers: list[grpc.GenericRpcHandler], sentence: str
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of another cluster")
    server = grpc.server(ThreadPoolExecutor(1), handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with pytest.raises(InputError, match=f"at RAY_ADDRESS=127.0.0.1:{port} {sentence}"):
        check_address(f"127.0.0.1:{port}")
    server.stop(None)


def test_a_job_asks_before_ray_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # whatever ran before in this process
    with pytest.raises(InputError, match=f"RAY_ADDRESS={address} does not answer"):
        connection.connect()


@pytest.mark.parametrize(("value", "here"), [("", True), ("local", True), ("host:6379", False)])
def test_local_is_a_cluster_of_ones_own(
    monkeypatch: pytest.MonkeyPatch, value: str, here: bool
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", value)
    assert connection.started_here() is here
