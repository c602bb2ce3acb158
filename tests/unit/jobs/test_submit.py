"""The line that is printed is the line that is run, and carries no secret."""

import http.server
import json
import shlex
import shutil
import socket
import threading
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ray._private.runtime_env.packaging import create_package

from jobs import jobs_api, submit
from jobs.jobs_api import check_takes_jobs
from orchestrator.cluster.package_size import weigh
from orchestrator.records.provenance import COMMIT, DIRTY, code_version
from orchestrator.store.retries import DEFAULT_RETRIES
from tests.support.odd_servers import answering
from tests.support.paths import ROOT
from training.config import InputError


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return shlex.split(capsys.readouterr().out.splitlines()[0])


def test_the_line_is_that_of_ray(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-to-be-sent")
    submit.main(
        [
            "--dry-run",
            "--no-wait",
            "--",
            "python",
            "-m",
            "jobs.campaign",
            "run",
            "wilson_alpha",
            "--no-tracking",
        ]
    )
    line = printed(capsys)
    assert line[:5] == ["ray", "job", "submit", "--working-dir", "."]
    assert line[line.index("--submission-id") + 1].startswith("campaign-")
    assert line[line.index("--") + 1 :] == [
        "python",
        "-m",
        "jobs.campaign",
        "run",
        "wilson_alpha",
        "--no-tracking",
    ]
    variables = json.loads(line[line.index("--runtime-env-json") + 1])["env_vars"]
    assert variables.pop("RAY_JOB_STOP_WAIT_TIME_S") == "60"
    commit, dirty = code_version()
    assert variables == {name: value for name, value in ((COMMIT, commit), (DIRTY, dirty)) if value}
    assert "--no-wait" in line
    assert "not-to-be-sent" not in " ".join(line)


def test_two_submissions_have_two_names(capsys: pytest.CaptureFixture[str]):
    names = []
    for _ in range(2):
        submit.main(["--dry-run", "--", "python", "-m", "jobs.demo"])
        line = printed(capsys)
        names.append(line[line.index("--submission-id") + 1])
    assert len(set(names)) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "say what to run"),
        (["--", "python", "-m", "jobs.demo"], "RAY_API_SERVER_ADDRESS names no cluster"),
    ],
)
def test_what_is_missing_is_said(
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    with pytest.raises(SystemExit) as stop:
        submit.main(arguments)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


def test_a_folder_without_the_code_is_refused(
    tmp_path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        submit.main(["--dry-run", "--", "python", "-m", "jobs.demo"])
    assert "from the root of a checkout" in capsys.readouterr().err


def test_a_folder_that_holds_large_files_is_refused_before_it_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "submit.py").write_text("")
    for name in ("scans/2024/a.dcm", "scans/2024/b.dcm", "weights.bin", "ignored/c.dcm"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.truncate(80 << 20)
    (tmp_path / ".rayignore").write_text("ignored/\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        submit.main(["--dry-run", "--", "python", "-m", "jobs.demo"])
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert "has 240 MiB" in told
    assert "the largest are scans/2024/ (160 MiB), weights.bin (80 MiB)" in told
    assert ".rayignore" in told
    assert "ignored/" not in told


def test_what_ray_packs_is_what_is_weighed(tmp_path: Path):
    """The weighing rests on a function inside Ray; this fails when Ray packs other files."""
    (tmp_path / "code" / "sub").mkdir(parents=True)
    (tmp_path / "code" / ".rayignore").write_text("*.jpg\nphotos/\n")
    for name in ("a.py", "a.jpg", "sub/b.py", "sub/b.jpg", "photos/c.py"):
        path = tmp_path / "code" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"1234567")
    package = tmp_path / "package.zip"
    create_package(str(tmp_path / "code"), package, include_gitignore=True, excludes=[])
    with zipfile.ZipFile(package) as packed:
        expected = sum(each.file_size for each in packed.infolist())
    assert sum(weigh(tmp_path / "code").values()) == expected


def test_the_folders_of_our_own_examples_do_not_travel(tmp_path: Path):
    shutil.copy(ROOT / ".rayignore", tmp_path)
    for name in ("photos/a.jpg", "masks/a.png", "predicted/a.csv", "VOC2012/a.txt", "else/a.JPG"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("x")
    assert set(weigh(tmp_path)) == {".rayignore"}


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:8265", "must be a dashboard's, like http://HOST:8265"),
        ("http://127.0.0.1:9", "RAY_API_SERVER_ADDRESS=http://127.0.0.1:9 does not answer"),
        ("http://127.0.0.1:{page}", "answers no dashboard of Ray (HTTP 404)"),
    ],
)
def test_a_cluster_that_takes_no_jobs_is_named_before_anything_is_sent(
    address: str,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", address.format(page=server.server_port))
        with pytest.raises(SystemExit) as stop:
            submit.main(["--", "python", "-m", "jobs.demo"])
        server.shutdown()
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9.2\r\n", bytes((0, 0, 0, 4, 0, 10, 10))])
def test_who_speaks_no_http_is_no_cluster(greeting: bytes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            with server.accept()[0] as accepted:
                accepted.recv(1)
                accepted.sendall(greeting)

        threading.Thread(target=greet, daemon=True).start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(InputError, match=r"does not answer \(who answers speaks no HTTP\)"):
            check_takes_jobs(address)


@pytest.mark.parametrize(
    "address", ["http://ada:secret@127.0.0.1:x", "http://ada:secret@a..b", "ada:secret@a:1"]
)
def test_an_address_that_is_none_is_refused_without_its_password(address: str):
    with pytest.raises(InputError, match="RAY_API_SERVER_ADDRESS") as caught:
        check_takes_jobs(address)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({}, "answers no dashboard of Ray: correct RAY_API_SERVER_ADDRESS"),
        ({"status": 302, "to": "/login"}, "answers no dashboard of Ray"),
        ({"body": "[]", "kind": "application/json"}, "answers no dashboard of Ray"),
        ({"body": '{"ok": true}', "kind": "application/json"}, "answers no dashboard of Ray"),
        ({"trickles": True}, "does not answer .no whole answer within 1 s"),
    ],
)
def test_another_server_is_no_dashboard(
    answer: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
):
    quick = replace(DEFAULT_RETRIES, doctor_http_seconds=1)
    monkeypatch.setattr(jobs_api, "DEFAULT_RETRIES", quick)
    with answering(**answer) as url, pytest.raises(InputError, match=words):
        check_takes_jobs(url)


def test_a_blank_in_an_address_is_seen():
    with pytest.raises(InputError, match=r"'http://127.0.0.1:8265 ' must be .* without blanks"):
        check_takes_jobs("http://127.0.0.1:8265 ")


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("RAY_AUTH_TOKEN", "secret\nline", "has a line's end within"),
        ("RAY_AUTH_TOKEN_PATH", "/tmp", "RAY_AUTH_TOKEN_PATH=/tmp cannot be read .Is a directory"),
        ("RAY_AUTH_TOKEN_PATH", "/no/file", "/no/file cannot be read .No such file"),
    ],
)
def test_a_token_that_is_none_is_named(
    variable: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv(variable, value)
    with pytest.raises(InputError, match=words) as caught:
        check_takes_jobs("http://127.0.0.1:9")
    assert "secret" not in str(caught.value)
