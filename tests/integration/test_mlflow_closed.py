"""MLflow, as infra/mlflow/serve.py starts it, answers to its own names only.

With --auth it answers to people with an account only.
"""

import base64
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.support.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
PASSWORD = "correct-horse-4711"
QUESTION = "api/2.0/mlflow/experiments/get?experiment_id=0"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a server, and yield its address. Its log must not hold the password."""
    folder = tmp_path_factory.mktemp("closed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder}/mlflow.db",
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "of-this-test",
        "TMPDIR": str(folder),
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "infra.mlflow.serve", "--auth"]
    command += ["--port", str(port), "--workers", "1"]
    command += ["--allowed-hosts", f"127.0.0.1:{port},mlflow.example"]
    log = folder / "server.log"
    with log.open("w") as file:
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=file, stderr=file, start_new_session=True
        )
    try:
        address = f"http://127.0.0.1:{port}"
        end = time.monotonic() + 240
        while answer(f"{address}/health") != 200:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.5)
        yield address
    finally:
        os.killpg(server.pid, 9)
        server.wait()
    assert PASSWORD not in log.read_text()


def answer(url: str, password: str | None = None, host: str | None = None) -> int | None:
    """Return the status of the answer, None where no server answers."""
    headers = {} if host is None else {"Host": host}
    if password is not None:
        credentials = base64.b64encode(f"admin:{password}".encode()).decode()
        headers["Authorization"] = f"Basic {credentials}"
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return None


@pytest.mark.parametrize(("password", "status"), [(None, 401), ("wrong", 401), (PASSWORD, 200)])
def test_a_password_is_asked_for(address: str, password: str | None, status: int):
    assert answer(f"{address}/{QUESTION}", password) == status


@pytest.mark.parametrize(("host", "status"), [("mlflow.example", 200), ("evil.example", 403)])
def test_it_answers_to_its_own_names(address: str, host: str, status: int):
    assert answer(f"{address}/{QUESTION}", PASSWORD, host) == status
