"""Each check passes on a sound machine, and says how to fix what it finds elsewhere."""

import errno
import fcntl
from pathlib import Path

import pytest

from jobs.doctor.cli import doctor, findings
from jobs.doctor.machine import check_disk, check_package, check_python
from jobs.doctor.services import check_mlflow, check_store


def test_a_sound_machine_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        doctor(str(tmp_path / "store"), ray=False)
    shown = capsys.readouterr().out
    assert stop.value.code == ("FAIL" in shown)
    for check in ("python", "torch", "devices", "store", "mlflow"):
        assert f"ok   {check}" in shown


def test_what_is_missing_is_named_with_its_fix(tmp_path: Path):
    (tmp_path / "file").write_text("")
    assert "rights" in check_store(str(tmp_path / "file" / "store")).fix
    assert "pip install" in check_package("no-such-package-stepchain").fix
    assert "3.11" in check_python((3, 10)).fix


def test_a_cache_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def none(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    assert "GB free" in check_disk(tmp_path / "cache").found
    monkeypatch.setattr(fcntl, "flock", none)
    finding = check_disk(tmp_path / "cache")
    assert f"the file system of {tmp_path}" in finding.found
    assert "has no locks" in finding.found
    assert "STEPCHAIN_CACHE" in finding.fix


def test_an_mlflow_that_does_not_answer_is_shown_without_its_password(tmp_path: Path):
    finding = check_mlflow(str(tmp_path), "http://ada:secret@127.0.0.1:9")
    assert "mlflow server" in finding.fix
    assert "secret" not in f"{finding}"


def test_a_failure_shows_in_the_exit_code(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        doctor("s3:///nowhere", ray=False)
    assert stop.value.code == 1
    assert "to fix it: " in capsys.readouterr().out


def test_packages_come_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("jobs.doctor.cli.PACKAGES", ("no-such-package-stepchain",))
    assert [finding.what for finding in findings("store", None, ray=True)] == [
        "python",
        "no-such-package-stepchain",
    ]
