"""The line that is printed is the line that is run, and carries no secret."""

import json
import shlex

import pytest

from jobs import submit
from orchestrator.records.provenance import COMMIT, DIRTY, code_version


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
