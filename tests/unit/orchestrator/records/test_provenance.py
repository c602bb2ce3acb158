import os
import subprocess
from pathlib import Path

import pytest

from orchestrator.records.provenance import provenance, submission


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=x", "-c", "user.email=x@localhost", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a committed project with our folders."""
    for name in [
        name for name in os.environ if name.startswith("GIT_")
    ]:  # a hook's would point elsewhere
        monkeypatch.delenv(name)
    root = tmp_path / "project"
    for name in ("orchestrator", "training", "jobs"):
        (root / name).mkdir(parents=True)
        (root / name / "code.py").write_text("x = 1\n")
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "first")
    return root


def test_clean_code_has_a_commit_and_no_difference(project: Path):
    found = provenance("cpu", project)
    assert found.commit == git(project, "rev-parse", "HEAD")
    assert found.dirty is None
    assert found.device == "cpu"
    assert found.created.endswith("+00:00")
    assert {"python", "torch", "numpy", "pyarrow", "ray", "mlflow"} <= set(found.versions)


def test_what_is_not_committed_is_told_by_a_digest(project: Path):
    code = project / "training" / "code.py"
    code.write_text("x = 2\n")
    changed = provenance("cpu", project).dirty
    assert changed is not None
    assert len(changed) == 64
    assert provenance("cpu", project).dirty == changed
    code.write_text("x = 3\n")
    assert provenance("cpu", project).dirty not in (None, changed)
    code.write_text("x = 1\n")
    assert provenance("cpu", project).dirty is None


def test_a_new_file_of_code_counts_and_other_files_do_not(project: Path):
    (project / "store").mkdir()
    (project / "store" / "record.json").write_text("{}")
    assert provenance("cpu", project).dirty is None
    (project / "training" / "more.py").write_text("y = 1\n")
    new = provenance("cpu", project).dirty
    assert new is not None
    (project / "training" / "more.py").write_text("y = 2\n")
    assert provenance("cpu", project).dirty not in (None, new)


def test_code_outside_git_has_no_commit(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "copy").mkdir()
    assert provenance("cpu", tmp_path / "copy").commit is None
    inside = project / "site-packages"
    inside.mkdir()
    assert provenance("cpu", inside).commit is None  # that is the surrounding project's
    monkeypatch.setenv("PATH", "")
    assert provenance("cpu", project).commit is None


def test_a_repository_without_commits_has_none(tmp_path: Path, project: Path):
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "--quiet")
    found = provenance("cpu", empty)
    assert (found.commit, found.dirty) == (None, None)


def test_no_environment_and_no_path_is_told(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    (project / "training" / "code.py").write_text("x = 2\n")
    text = provenance("cpu", project).model_dump_json()
    assert "hush" not in text
    assert str(project) not in text
    assert str(Path.cwd()) not in text


def test_code_that_was_sent_without_git_has_the_commit_that_its_sender_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("STEPCHAIN_COMMIT", "0" * 40)
    monkeypatch.setenv("STEPCHAIN_DIRTY", "f" * 64)
    found = provenance("cpu", tmp_path)
    assert (found.commit, found.dirty) == ("0" * 40, "f" * 64)
    monkeypatch.setenv("STEPCHAIN_COMMIT", "what-is-no-commit-is-left-out")
    assert provenance("cpu", tmp_path).commit is None


def test_what_is_told_does_not_outdo_git(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STEPCHAIN_COMMIT", "0" * 40)
    assert provenance("cpu", project).commit == git(project, "rev-parse", "HEAD")


def test_a_submitted_job_knows_its_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert submission() is None
    monkeypatch.setenv(
        "RAY_JOB_CONFIG_JSON_ENV_VAR",
        '{"runtime_env": {}, "metadata": {"job_submission_id": "train-1"}}',
    )
    assert submission() == "train-1"
