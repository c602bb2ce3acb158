"""Serve one answer to every request, as a server does that is not the one asked for."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def answering(
    status: int = 200,
    body: str = "<!doctype html><html><body>Login</body></html>",
    kind: str = "text/html",
    to: str = "",
    trickles: bool = False,
) -> Iterator[str]:
    """Serve an answer on this machine; yield the server's URL.

    Args:
        status: Its HTTP status.
        body: Its text.
        kind: Its content type.
        to: Where it redirects to: a path of this very server.
        trickles: Whether it sends a blank now and then instead, without end.
    """

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            if to:
                self.send_header("Location", f"http://127.0.0.1:{server.server_port}{to}")
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(1 << 20 if trickles else len(body)))
            self.end_headers()
            if trickles:
                # Until the one who asked is gone.
                with suppress(OSError):
                    while True:
                        self.wfile.write(b" ")
                        time.sleep(0.1)
            elif self.command != "HEAD":
                self.wfile.write(body.encode())

        do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = do_PATCH = answer

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
