"""Each error of MLflow is one sentence, and means: again, never, or not this run."""

import errno
import fcntl
import json
import logging
import shutil
import socket
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST

from jobs.doctor.services import check_mlflow
from orchestrator.records.results import ChainResult
from orchestrator.store.base import Store
from orchestrator.store.retries import Retries
from orchestrator.tracking import mlflow_client
from orchestrator.tracking.mlflow_client import RunClient
from orchestrator.tracking.mlflow_errors import (
    MlflowError,
    RunRefused,
    Unreachable,
    Unusable,
    explain,
)
from orchestrator.tracking.rebuild import rebuild
from orchestrator.tracking.runs import build_finished_chain_run
from orchestrator.tracking.tracker import Tracker
from tests.support.mlflow_2 import run_mlflow_2
from tests.support.mlflow_runs import all_runs
from tests.support.odd_servers import answering
from training.metrics import wilson

JSON = "application/json"


def garbage(database: Path) -> None:
    database.write_bytes(b"garbage" * 1000)


def half_made(database: Path) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute("DROP TABLE experiment_tags")
    connection.close()


def of_another_version(revision: str) -> Callable[[Path], None]:
    def change(database: Path) -> None:
        with sqlite3.connect(database) as connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        connection.close()

    return change


def folder(database: Path) -> None:
    database.unlink()
    database.mkdir()


@pytest.mark.parametrize(
    ("spoil", "fix"),
    [
        (garbage, "move the file away"),
        (half_made, "move the file away"),
        (of_another_version("cc1f77228345"), "mlflow db upgrade"),
        (folder, "correct MLFLOW_TRACKING_URI"),
    ],
)
def test_a_database_that_cannot_be_used_is_said_once_and_nothing_is_kept_for_later(
    uri: str,
    result: ChainResult,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Path], None],
    fix: str,
) -> None:
    spoil(Path(uri.removeprefix("sqlite:///")))
    with pytest.raises(Unusable, match=fix) as caught:
        RunClient(uri)
    assert "\n" not in str(caught.value)
    with caplog.at_level(logging.WARNING), Tracker(uri, tmp_path / "spool") as tracker:
        tracker.report([build_finished_chain_run(result, wilson())] * 3)
    (message,) = [message for message in caplog.messages if "MLflow" in message]
    assert "training goes on without MLflow" in message
    assert not list((tmp_path / "spool").glob("*"))
    finding = check_mlflow(str(tmp_path), uri)
    assert (finding.found, fix.split()[0] in finding.fix) == ("cannot be used", True)


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("foo://bar", "must be like http://host:5000"),
        ("127.0.0.1:5000", "must be like http://host:5000"),
        ("mysql://ada:secret@127.0.0.1:{open}/x", "install the package"),
        (
            "postgresql://ada:secret@127.0.0.1:{closed}/x",
            "start it, or correct MLFLOW_TRACKING_URI",
        ),
        ("http://ada:secret@127.0.0.1:{closed}", "start it .* or correct MLFLOW_TRACKING_URI"),
    ],
)
def test_an_address_that_leads_nowhere_is_one_sentence_soon(uri: str, sentence: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ports = {"open": server.getsockname()[1]}
        with socket.create_server(("127.0.0.1", 0)) as other:
            ports["closed"] = other.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(MlflowError, match=sentence) as caught:
            RunClient(uri.format(**ports))
    assert time.monotonic() - began < 15
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "kind", "sentence"),
    [
        ({}, Unusable, "no MLflow: correct MLFLOW_TRACKING_URI"),
        ({"status": 404}, Unusable, "no MLflow: correct MLFLOW_TRACKING_URI"),
        ({"status": 405}, Unusable, "no MLflow: correct MLFLOW_TRACKING_URI"),
        ({"body": "{}", "kind": JSON}, Unusable, "no MLflow: correct MLFLOW_TRACKING_URI"),
        ({"body": '{"ok": true}', "kind": JSON}, Unusable, "no MLflow: correct MLFLOW_TRACKING"),
        ({"status": 401, "body": "Who are you?"}, Unusable, "set MLFLOW_TRACKING_USERNAME"),
        ({"status": 403, "body": "Invalid Host header"}, Unusable, "--allowed-hosts"),
        ({"status": 502, "body": "bad gateway"}, Unreachable, "start it"),
        ({"trickles": True}, Unreachable, "no whole answer within 1.5 s.*start it"),
    ],
)
def test_a_server_that_refuses_or_is_another_is_told_from_one_that_is_down(
    answer: dict[str, Any],
    kind: type[MlflowError],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mlflow_client, "DEFAULT_RETRIES", Retries(first_answer_seconds=0.5))
    with answering(**answer) as url, pytest.raises(kind, match=sentence):
        RunClient(url)


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (
            OSError("HTTPSConnectionPool: (Caused by SSLError(CERTIFICATE_VERIFY_FAILED))"),
            "set MLFLOW_TRACKING_SERVER_CERT_PATH",
        ),
        (
            OSError("Could not find a suitable TLS CA certificate bundle, invalid path: /nope"),
            "set MLFLOW_TRACKING_SERVER_CERT_PATH",
        ),
        (MlflowException("Reading Databricks credential configuration failed"), "not supported"),
        (ValueError("Invalid header value b'Bearer secret\\nline'"), "MLFLOW_TRACKING_TOKEN"),
        (
            ValueError("Failed to convert 'abc' to <class 'int'> for MLFLOW_HTTP_REQUEST_TIMEOUT"),
            "correct that variable",
        ),
        (
            ValueError("MLFLOW_TRACKING_INSECURE_TLS value must be one of ['true', 'false']"),
            "correct that variable",
        ),
    ],
)
def test_what_a_variable_says_wrongly_is_for_a_person_to_mend(error: Exception, fix: str) -> None:
    found = explain(error, "https://mlflow")
    assert isinstance(found, Unusable)
    assert fix in str(found)
    assert "secret" not in str(found)


def test_options_of_sqlite_are_no_part_of_the_files_name(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db?timeout=5"
    for _ in range(2):
        RunClient(uri)
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", ".mlflow.lock"}
    assert check_mlflow(str(tmp_path / "store"), uri).found == (
        "answers, and its tables are of this version"
    )


def test_an_address_of_a_database_that_is_none_is_one_sentence() -> None:
    with pytest.raises(Unusable, match=r"is no address of a database .*correct MLFLOW"):
        RunClient("postgresql://127.0.0.1:x/ml")


@pytest.mark.parametrize(
    "told",
    [
        "(sqlite3.IntegrityError) UNIQUE constraint failed: params.key, params.run_uuid",
        '(psycopg2.errors.UniqueViolation) duplicate key value violates unique constraint "params"',
        "(pymysql.err.IntegrityError) (1062, \"Duplicate entry 'a' for key 'params.PRIMARY'\")",
    ],
)
def test_two_jobs_that_write_a_run_at_the_same_moment_try_again(
    result: ChainResult, told: str
) -> None:
    run = build_finished_chain_run(result, wilson())
    error = explain(MlflowException(told, error_code=BAD_REQUEST), "http://mlflow", run)
    assert isinstance(error, Unreachable)
    assert run.name in str(error)


def test_a_run_that_is_refused_or_fails_each_time_does_not_hold_up_the_rest(
    uri: str, result: ChainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = build_finished_chain_run(result, wilson())
    refused, failing = (run.model_copy(update={"key": key}) for key in ("refused", "failing"))
    put = RunClient.put

    def put_but(self: RunClient, each: object) -> None:
        if each == refused:
            raise RunRefused("as asked")
        if each == failing:
            raise Unreachable("as asked")
        put(self, run)

    monkeypatch.setattr(RunClient, "put", put_but)
    quick = Retries(tracking_first_pause_seconds=0.01, tracking_pause_seconds=0.01)
    tracker = Tracker(uri, tmp_path / "spool", quick)
    tracker.report([refused, failing, run])
    deadline = time.monotonic() + 60
    while not all_runs(uri):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    tracker.close()
    assert not list((tmp_path / "spool").glob("*"))


def test_a_damaged_spool_holds_up_nothing(uri: str, result: ChainResult, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    (spool / "0a.jsonl").write_text('{"of": "another version"}\n')
    with Tracker(uri, spool) as tracker:
        tracker.report([build_finished_chain_run(result, wilson())])
    assert len(all_runs(uri)) == 1
    assert not list(spool.glob("*"))


def test_a_database_is_whole_when_it_has_its_name(
    empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill while MLflow makes its tables leaves a file of another name, which is made again."""

    class Killed(BaseException):
        pass

    class Client:
        def __init__(self, uri: str) -> None:
            self.path = Path(uri.removeprefix("sqlite:///"))

        def search_experiments(self, max_results: int) -> list[object]:
            self.path.write_bytes(b"half made")
            raise Killed

    final = tmp_path / "mlflow.db"
    with monkeypatch.context() as patched:
        patched.setattr("mlflow.MlflowClient", Client)
        with pytest.raises(Killed):
            RunClient(f"sqlite:///{final}")
    assert not final.exists()
    shutil.copy(empty_database, final)
    RunClient(f"sqlite:///{final}")


def test_without_locks_a_database_names_its_variable(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(Unusable, match=r"has no locks .*set MLFLOW_TRACKING_URI"):
        RunClient(uri)


def test_an_mlflow_one_version_behind_shows_runs_that_end_without_models(
    store: Store, result: ChainResult, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with run_mlflow_2() as (url, server):
        assert rebuild(store, url, wilson()) == (3, 0, ())
        ended = [json.loads(body) for path, body in server.requests if path.endswith("runs/update")]
        assert [each["status"] for each in ended] == ["FINISHED"] * 3
        finding = check_mlflow(str(tmp_path), url)
        assert (finding.fix, finding.limited) == ("", True)
        assert "older than version 3" in finding.found
        with caplog.at_level(logging.WARNING), Tracker(url, tmp_path / "spool") as tracker:
            pass
    assert tracker.failures == 0
    assert any("is older than version 3 and has no models" in each for each in caplog.messages)
