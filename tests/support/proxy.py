"""A proxy in front of a real server that damages, delays or refuses what passes."""

import io
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Callable
from pathlib import Path

Fault = str | None
Choose = Callable[[str, str], Fault]  # method, path
DATA = ("reset", "truncate", "stall", "flip")  # faults of a body


class Proxy(socketserver.ThreadingTCPServer):
    """Pass requests on, one a connection, with the faults that `choose(method, path)` returns."""

    daemon_threads = True

    def __init__(self, upstream: str, certificate: Path | None = None) -> None:
        """Listen at a free port.

        Args:
            upstream: The server's URL.
            certificate: PEM file of a certificate and its key. With it, clients speak TLS.
        """
        super().__init__(("127.0.0.1", 0), Handler)
        self._tls: ssl.SSLContext | None = None
        if certificate:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(certificate)
        host, port = upstream.removeprefix("http://").split(":")
        self.upstream = host, int(port)
        self.choose: Choose = lambda method, path: None
        self.faults = 0
        self.body_bytes = 0  # of the answers passed on
        # The status and code that answer every request with a condition; None passes them on.
        self.condition: tuple[int, str] | None = None
        self.heads: list[list[bytes]] = []  # of all requests

    @property
    def url(self) -> str:
        scheme = "https" if self._tls else "http"
        return f"{scheme}://127.0.0.1:{self.server_address[1]}"

    def get_request(self) -> tuple[socket.socket, object]:
        """Accept a connection. The handshake is made in the connection's own thread."""
        accepted, address = super().get_request()
        if self._tls:
            accepted = self._tls.wrap_socket(
                accepted, server_side=True, do_handshake_on_connect=False
            )
        return accepted, address

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore a client that gives up, because the tests are about such clients."""


class Handler(socketserver.StreamRequestHandler):
    """Handle one connection."""

    server: Proxy

    def handle(self) -> None:
        head = self.head(self.rfile)
        if not head:
            return
        self.server.heads.append(head)
        method, path, _ = head[0].split()
        if self.server.condition and any(
            line.lower().startswith(b"if-none-match:") for line in head
        ):
            self.rfile.read(self.length(head))
            return self.refuse(*self.server.condition, has_body=True)
        fault = self.server.choose(method.decode(), path.decode())
        self.server.faults += fault is not None
        if fault == "refuse":
            return self.reset()
        if fault == "unavailable":
            return self.refuse(503, "SlowDown", has_body=method != b"HEAD")
        if fault == "expired":
            return self.refuse(400, "ExpiredToken", has_body=method != b"HEAD")
        with (
            socket.create_connection(self.server.upstream) as upstream,
            upstream.makefile("rb") as answer,
        ):
            upstream.sendall(b"".join([head[0], *self.closing(head[1:]), b"\r\n"]))
            if any(line.lower().startswith(b"expect:") for line in head):
                self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            upstream.sendall(self.rfile.read(self.length(head)))
            while (lines := self.head(answer))[0].split()[1] == b"100":
                pass
            self.wfile.write(b"".join([lines[0], *self.closing(lines[1:]), b"\r\n"]))
            self.body(b"" if method == b"HEAD" else answer.read(self.length(lines)), fault)

    def refuse(self, status: int, code: str, *, has_body: bool) -> None:
        """Answer with an error of S3, instead of passing the request on."""
        body = f"<Error><Code>{code}</Code><Message>as asked</Message></Error>" if has_body else ""
        head = f"HTTP/1.1 {status} no\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        self.wfile.write((head + body).encode())

    def body(self, data: bytes, fault: Fault) -> None:
        """Pass a body on, or damage it."""
        half = len(data) // 2
        self.server.body_bytes += len(data)
        if fault == "flip" and data:
            self.wfile.write(data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :])
        elif fault in DATA and data:
            self.wfile.write(data[:half])
            self.wfile.flush()
            if fault == "stall":
                # The client waits less long.
                threading.Event().wait(2)
            elif fault == "reset":
                self.reset()
        else:
            self.wfile.write(data)

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def head(self, file: io.BufferedIOBase) -> list[bytes]:
        """Return the lines up to the empty one, none at the end of the file."""
        lines: list[bytes] = []
        while (line := file.readline()) not in (b"", b"\r\n"):
            lines.append(line)
        return lines

    def closing(self, lines: list[bytes]) -> list[bytes]:
        """Return the lines of a head, with a close of the connection."""
        dropped = (b"connection:", b"expect:")
        kept = [line for line in lines if not line.lower().startswith(dropped)]
        return [*kept, b"Connection: close\r\n"]

    def length(self, lines: list[bytes]) -> int:
        """Return the length of the body that a head names."""
        for line in lines:
            if line.lower().startswith(b"content-length:"):
                return int(line.split(b":")[1])
        return 0
