"""MLflow's server, which can be killed, and a real browser: headless Chromium, spoken to over its debugging protocol."""

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
PATIENCE = 150.0  # seconds for a page to show what it should, on a machine with much else to do


class Page:
    """The browser's one page. All that it asked for and complained of since `open` stands in `asked` and `errors`."""

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
        """Ask the browser, and note what it says meanwhile."""
        return self._loop.run_until_complete(self._call(method, parameters))

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        while True:
            message = await asyncio.wait_for(self._socket.receive_json(), PATIENCE)
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        said = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.asked.append(said["request"]["url"])
            case "Runtime.exceptionThrown":
                self.errors.append(json.dumps(said["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if said["type"] == "error":
                self.errors.append(json.dumps(said["args"]))
            case "Log.entryAdded" if said["entry"]["level"] == "error":
                self.errors.append(f"{said['entry']['text']} {said['entry'].get('url', '')}")

    def open(self, url: str) -> None:
        """Go there and wait until it is loaded."""
        self.call("Page.navigate", url="about:blank")
        self.asked, self.errors = [], []
        self.call("Page.navigate", url=url)
        self.wait("location.href != 'about:blank' && document.readyState == 'complete'")

    def evaluate(self, expression: str) -> Any:
        """What the expression is worth in the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)[
            "result"
        ].get("value")

    def wait(self, expression: str) -> None:
        """Until the expression is true."""
        deadline = time.monotonic() + PATIENCE
        while not self.evaluate(expression):
            assert time.monotonic() < deadline, (
                f"{expression} is not true; the page says {self.text()[:3000]}"
            )
            time.sleep(0.2)

    def wait_for(self, *texts: str) -> None:
        """Until the page shows these texts."""
        for text in texts:
            self.wait(f"document.body.innerText.includes({json.dumps(text)})")

    def text(self) -> str:
        return self.evaluate("document.body.innerText")

    def click(self, expression: str) -> None:
        """Click the element, as a mouse would, once it is there and stays where it is."""
        self.wait(f"({expression})?.getBoundingClientRect().width > 0")
        self.evaluate(f"({expression}).scrollIntoView({{block: 'center'}})")
        box = f"(({expression})?.getBoundingClientRect() ?? {{}})"
        where, before = self._middle(box), None
        while where != before or None in where:
            time.sleep(0.3)
            where, before = self._middle(box), where
        x, y = where
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def _middle(self, box: str) -> list[float | None]:
        return [
            self.evaluate(f"{box}.{side} + {box}.{size} / 2")
            for side, size in (("x", "width"), ("y", "height"))
        ]

    def press(self, key: str, code: int) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code
            )

    def size(self, width: int, height: int, dark: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        )

    def close(self) -> None:
        async def leave() -> None:
            await self._socket.close()
            await self._session.close()

        self._loop.run_until_complete(leave())
        self._loop.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page of a browser of its own; skips where there is no Chromium."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(
            f"no browser: none of {', '.join(NAMES)} is on PATH (Debian: apt-get install chromium)"
        )
    profile = tmp_path_factory.mktemp("browser")
    quiet = (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--no-first-run",
        "--disable-sync",
    )
    alone = (
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-dev-shm-usage",
    )
    command = [
        found,
        *quiet,
        *alone,
        "--remote-debugging-port=0",
        f"--user-data-dir={profile}",
        "about:blank",
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        told, deadline = profile / "DevToolsActivePort", time.monotonic() + PATIENCE
        while not (told.exists() and told.read_text().count("\n")):
            assert process.poll() is None, f"{found} ended with {process.returncode}"
            assert time.monotonic() < deadline
            time.sleep(0.1)
        shown = Page(int(told.read_text().splitlines()[0]))
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
    """An MLflow server on an sqlite file of its own, at the same address whenever it is started."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address, self.database = (
            f"http://127.0.0.1:{self.port}",
            f"sqlite:///{folder}/mlflow.db",
        )
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [
            Path(sys.executable).with_name("mlflow"),
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
        ]
        command += [
            "--workers",
            "1",
            "--backend-store-uri",
            self.database,
            "--artifacts-destination",
            self._folder / "artifacts",
        ]
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
        """At once, with all its processes."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, 9)
            self._process.wait()
            self._process = None


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Server]]:
    """Function that makes a server, which is not started yet; killed in the end."""
    made: list[Server] = []

    def make() -> Server:
        made.append(Server(tmp_path_factory.mktemp("mlflow")))
        return made[-1]

    yield make
    for server in made:
        server.kill()
