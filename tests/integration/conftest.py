"""A Ray head alone, an MLflow server that can be killed, and headless Chromium by its protocol."""

import asyncio
import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Seconds for a page to show what it should. A busy machine needs minutes.
TIMEOUT = 150.0


class Page:
    """The browser's one page.

    `asked` holds the addresses that the page has requested since `open`, and `errors` its errors.
    """

    def __init__(self, port: int) -> None:
        self.asked: list[str] = []
        self.errors: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._number = 0
        self._events: list[dict[str, Any]] = []
        self._loop.run_until_complete(self._connect(port))
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    async def _connect(self, port: int) -> None:
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            target = next(each for each in await answer.json() if each["type"] == "page")
        self._socket = await self._session.ws_connect(
            target["webSocketDebuggerUrl"], max_msg_size=0
        )

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol, and note the events that arrive meanwhile."""
        return self._loop.run_until_complete(self._call(method, parameters))

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        while True:
            message = await asyncio.wait_for(self._socket.receive_json(), TIMEOUT)
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.asked.append(parameters["request"]["url"])
            case "Runtime.exceptionThrown":
                self.errors.append(json.dumps(parameters["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if parameters["type"] == "error":
                self.errors.append(json.dumps(parameters["args"]))
            case "Log.entryAdded" if parameters["entry"]["level"] == "error":
                self.errors.append(
                    f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}"
                )

    def open(self, url: str) -> None:
        """Open an address, and wait until the page is loaded."""
        self.call("Page.navigate", url="about:blank")
        self.asked = []
        self.errors = []
        self.call("Page.navigate", url=url)
        self.wait("location.href != 'about:blank' && document.readyState == 'complete'")

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    def wait(self, expression: str) -> None:
        """Wait until the expression is true."""
        deadline = time.monotonic() + TIMEOUT
        while not self.evaluate(expression):
            shown = self.text()[:3000]
            assert time.monotonic() < deadline, f"{expression} is not true; the page shows {shown}"
            time.sleep(0.2)

    def wait_for(self, *texts: str) -> None:
        """Wait until the page shows these texts."""
        for text in texts:
            self.wait(f"document.body.innerText.includes({json.dumps(text)})")

    def text(self) -> str:
        # A page that is still loading has no body.
        return self.evaluate("document.body?.innerText ?? ''")

    def click(self, expression: str) -> None:
        """Click the element, as a mouse would, once it is there and no longer moves."""
        self.wait(f"({expression})?.getBoundingClientRect().width > 0")
        self.evaluate(f"({expression}).scrollIntoView({{block: 'center'}})")
        box = f"(({expression})?.getBoundingClientRect() ?? {{}})"
        before = None
        middle = self._middle(box)
        while middle != before or None in middle:
            time.sleep(0.3)
            before = middle
            middle = self._middle(box)
        x, y = middle
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def _middle(self, box: str) -> list[float | None]:
        x = self.evaluate(f"{box}.x + {box}.width / 2")
        y = self.evaluate(f"{box}.y + {box}.height / 2")
        return [x, y]

    def press(self, key: str, code: int) -> None:
        for kind in ("keyDown", "keyUp"):
            codes = {"code": key, "windowsVirtualKeyCode": code}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, **codes)

    def size(self, width: int, height: int, dark: bool = False) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(picture))

    def close(self) -> None:
        async def leave() -> None:
            await self._socket.close()
            await self._session.close()

        self._loop.run_until_complete(leave())
        self._loop.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Start a browser, and yield its page. Skip where there is no Chromium."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        names = ", ".join(NAMES)
        pytest.skip(f"no browser: none of {names} is on PATH (Debian: apt-get install chromium)")
    profile = tmp_path_factory.mktemp("browser")
    window = ("--headless=new", "--disable-gpu", "--hide-scrollbars")
    isolated = ("--no-sandbox", "--no-first-run", "--disable-sync", "--disable-dev-shm-usage")
    offline = ("--disable-background-networking", "--disable-component-update")
    session = ("--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank")
    command = [found, *window, *isolated, *offline, *session]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        # Chromium writes its port into this file.
        port_file = profile / "DevToolsActivePort"
        deadline = time.monotonic() + TIMEOUT
        while not (port_file.exists() and port_file.read_text().count("\n")):
            assert process.poll() is None, f"{found} ended with {process.returncode}"
            assert time.monotonic() < deadline
            time.sleep(0.1)
        shown = Page(int(port_file.read_text().splitlines()[0]))
        yield shown
        shown.close()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


class Server:
    """An MLflow server on its own SQLite file. It has the same address every time it starts."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.database = f"sqlite:///{folder}/mlflow.db"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        program = Path(sys.executable).with_name("mlflow")
        network = ("--host", "127.0.0.1", "--port", str(self.port), "--workers", "1")
        artifacts = self._folder / "artifacts"
        storage = ("--backend-store-uri", self.database, "--artifacts-destination", artifacts)
        command = [program, "server", *network, *storage]
        silent = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        log = self._folder / "server.log"
        with log.open("a") as file:
            self._process = subprocess.Popen(
                command,
                env=os.environ | silent,
                cwd=self._folder,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        deadline = time.monotonic() + 180
        while not self.answers():
            assert self._process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def kill(self) -> None:
        """Kill the server at once, with all its processes."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, 9)
            self._process.wait()
            self._process = None


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Server]]:
    """Yield a function that makes a server without starting it. Kill all servers at the end."""
    made: list[Server] = []

    def make() -> Server:
        made.append(Server(tmp_path_factory.mktemp("mlflow")))
        return made[-1]

    yield make
    for server in made:
        server.kill()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Start a head that trains nothing, without any worker."""
    # The cluster exists for one test, on this machine.
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "dashboard_port": 0, "resources": {"orchestrator": 4}}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    cluster.shutdown()
