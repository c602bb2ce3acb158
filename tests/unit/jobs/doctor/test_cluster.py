"""A node that differs is named with its fix; a cluster that accepts jobs from anyone fails."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from jobs.doctor.cluster import judge, look
from jobs.doctor.services import Finding, check_jobs_api, check_mlflow, check_store, check_token
from orchestrator.cluster.ray_tasks import NodeAnswer, NodeFailure
from orchestrator.store.folder import FolderStore
from tests.support.odd_servers import answering

SOUND = {
    "host": "a",
    "time": 1000.0,
    "versions": {"python": "3.11.7", "torch": "2.13.0", "ray": "2.60.0"},
    "gpus": 1,
    "disk": 50e9,
    "shared": 8e9,
    "store": Finding("store", "well"),
}


def failures(**different: Any) -> list[Finding]:
    facts = (SOUND, SOUND | {"host": "b"} | different)
    answers = [NodeAnswer(each, 1, 999.0, 1001.0) for each in facts]
    return [
        finding for finding in judge(answers, least_disk=5e9, least_shared=0.5e9) if finding.fix
    ]


def test_sound_machines_pass():
    assert failures() == []


@pytest.mark.parametrize(
    ("different", "words"),
    [
        ({"versions": SOUND["versions"] | {"torch": "2.12.0"}}, "torch 2.12.0, on a 2.13.0"),
        ({"time": 1100.0}, "99 s from ours"),
        ({"gpus": 0}, "torch sees none"),
        ({"disk": 1e9}, "1.0 GB free"),
        ({"shared": 64e6}, "0.06 GB"),
        ({"store": Finding("store", "refused", "check the keys")}, "refused"),
    ],
)
def test_a_machine_that_differs_is_named(different: dict[str, Any], words: str):
    (finding,) = failures(**different)
    assert finding.what.startswith("b ")
    assert words in finding.found


def test_a_machine_without_an_answer_is_named_and_the_others_are_judged():
    silent = NodeFailure("a", "does not answer within 120 s")
    answers = [silent, NodeAnswer(SOUND | {"host": "b", "disk": 1e9}, 1, 999.0, 1001.0)]
    found = list(judge(answers, least_disk=5e9, least_shared=0.5e9))
    assert [finding.what for finding in found] == ["a", "b versions", "b cache"]
    assert found[0].found == "does not answer within 120 s"
    assert "restart Ray there" in found[0].fix
    assert [bool(finding.fix) for finding in found] == [True, False, True]


def test_what_a_machine_tells_can_be_judged(tmp_path: Path):
    facts = look(str(tmp_path), lambda: check_store(str(tmp_path / "store")))
    answer = NodeAnswer(facts, 0, facts["time"], facts["time"])
    findings = list(judge([answer], least_disk=0, least_shared=0))
    assert [finding.fix for finding in findings] == [""]


class Server(BaseHTTPRequestHandler):
    """A dashboard that asks for a token, or none."""

    token: str | None = None

    def do_GET(self) -> None:
        welcome = self.token is None or self.headers["Authorization"] == f"Bearer {self.token}"
        self.send_response(200 if welcome else 401)
        self.end_headers()
        if welcome:
            self.wfile.write(b'{"ray_version": "2.60.0"}')

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_cluster_that_takes_jobs_from_anybody_fails(
    address: str, monkeypatch: pytest.MonkeyPatch
):
    assert "from anyone" in check_jobs_api(address).found
    monkeypatch.setattr(Server, "token", "right")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
    assert "refuses our token" in check_jobs_api(address).found
    monkeypatch.setenv("RAY_AUTH_TOKEN", "right")
    assert check_jobs_api(address).fix == ""
    assert "does not answer" in check_jobs_api("http://127.0.0.1:9").found
    with answering(body='{"ok": true}', kind="application/json") as url:
        assert check_jobs_api(url).found == "answers no dashboard of Ray"
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/no/such/file")
    monkeypatch.setattr(Server, "token", None)
    assert "from anyone" in check_jobs_api(address).found
    monkeypatch.setattr(Server, "token", "right")
    assert "RAY_AUTH_TOKEN_PATH=/no/such/file cannot be read" in check_jobs_api(address).fix


def test_a_token_that_others_can_read_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "token"
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert "there is none" in check_token().found
    path.write_text("secret")
    path.chmod(0o644)
    finding = check_token()
    assert "chmod 600" in finding.fix
    assert "secret" not in f"{finding}"
    path.chmod(0o600)
    assert check_token().fix == ""


def test_a_store_that_overwrites_what_it_should_keep_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    kept = FolderStore.write
    monkeypatch.setattr(
        FolderStore, "write", lambda self, key, data, only_if_absent=False: kept(self, key, data)
    )
    assert "If-None-Match" in check_store(str(tmp_path)).fix
    assert not [path for path in tmp_path.rglob("probe-*") if path.is_file()]


def test_an_older_mlflow_database_is_told_with_its_mending(tmp_path: Path):
    import sqlite3

    path = tmp_path / "old.db"
    database = sqlite3.connect(path)
    database.executescript(
        "CREATE TABLE alembic_version (version_num TEXT); "
        "INSERT INTO alembic_version VALUES ('451aebb31d03'); "
        "CREATE TABLE experiments (id INT); CREATE TABLE metrics (id INT);"
    )
    database.close()
    finding = check_mlflow(str(tmp_path), f"sqlite:///{path}")
    assert finding.fix, finding
