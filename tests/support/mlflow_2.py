"""Answer as a server of MLflow 2.22 did, from a recording of it."""

import http.server
import json
import os
import threading
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

RECORDING = Path(__file__).parent.parent / "data" / "mlflow_2_22.json"
# The address of a server of MLflow 2.22, with which the recording is made again.
RECORD = os.environ.get("STEPCHAIN_MLFLOW_2")


class Answer(NamedTuple):
    """What the server answered to a request."""

    method: str
    path: str
    status: int
    content_type: str
    body: str


class Request(NamedTuple):
    """What a client asked."""

    path: str
    body: str


class Server(http.server.ThreadingHTTPServer):
    """Give the recorded answers to each path in their order, and the last one again and again."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[Request] = []
        self.recorded: list[Answer] = []
        self._left: defaultdict[tuple[str, str], list[Answer]] = defaultdict(list)
        if not RECORD:
            for row in json.loads(RECORDING.read_text()):
                answer = Answer(*row)
                self._left[answer.method, answer.path].append(answer)

    def answer(self, method: str, path: str, body: bytes, content_type: str) -> Answer:
        self.requests.append(Request(path, body.decode(errors="replace")))
        # Runs and experiments have other ids each time; a query is part of what was asked.
        if RECORD:
            self.recorded.append(_ask(method, path, body, content_type))
            return self.recorded[-1]
        left = self._left[method, path.partition("?")[0]]
        if not left:
            return Answer(method, path, 404, "text/html", f"{method} {path} was not recorded")
        return left.pop(0) if len(left) > 1 else left[0]


class Handler(http.server.BaseHTTPRequestHandler):
    """Pass a request to the server's recording."""

    server: Server

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        found = self.server.answer(
            self.command,
            self.path,
            self.rfile.read(length),
            self.headers.get("Content-Type") or "application/json",
        )
        self.send_response(found.status)
        self.send_header("Content-Type", found.content_type)
        self.send_header("Content-Length", str(len(found.body.encode())))
        self.end_headers()
        self.wfile.write(found.body.encode())

    do_POST = do_PUT = do_PATCH = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output free of requests."""


@contextmanager
def run_mlflow_2() -> Iterator[tuple[str, Server]]:
    """Run the server; yield its URL and itself."""
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", server
        finally:
            server.shutdown()
            if RECORD:
                rows = [row._replace(path=row.path.partition("?")[0]) for row in server.recorded]
                RECORDING.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")


def _ask(method: str, path: str, body: bytes, content_type: str) -> Answer:
    """Ask the real server."""
    headers = {"Content-Type": content_type}
    request = urllib.request.Request(
        f"{RECORD}{path}", data=body or None, headers=headers, method=method
    )
    try:
        with urllib.request.urlopen(request) as answer:
            found = answer.headers.get_content_type()
            return Answer(method, path, answer.status, found, answer.read().decode())
    except urllib.error.HTTPError as error:
        found = error.headers.get_content_type()
        return Answer(method, path, error.code, found, error.read().decode())
