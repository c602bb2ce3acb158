"""What a local cluster keeps, and how its services are given secrets; nothing is started."""

import configparser
import os
import stat
from pathlib import Path

import pytest

from infra.local import secrets
from infra.local.services import services
from infra.local.settings import Settings
from infra.mlflow import serve


def private(path: Path) -> bool:
    return not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)


def test_secrets_and_ports_are_made_once_and_only_their_owner_reads_them(tmp_path: Path):
    first = Settings.open(tmp_path / "cluster", workers=2, database="sqlite")
    again = Settings.open(tmp_path / "cluster")
    assert first == again
    assert first.secret_key != Settings.open(tmp_path / "other", database="sqlite").secret_key
    first.write_environment()
    for name in ("settings.json", "token", "environment"):
        assert private(first.folder / name), name
    with pytest.raises(SystemExit, match="sqlite"):
        Settings.open(first.folder, database="postgres")


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_no_secret_is_in_a_command_line_nor_in_what_is_printed(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("swift", reason="the S3 server is not installed")
    monkeypatch.setenv("CANARY", "of-the-shell")
    settings = Settings.open(tmp_path, workers=2, database=database)
    token = (tmp_path / "token").read_text()
    found = list(services(settings))
    assert [service.name for service in found][-3:] == ["head", "worker-1", "worker-2"]
    for service in found:
        for secret in (settings.secret_key, settings.database_password, token):
            assert secret not in " ".join(service.command)
            assert secret not in repr(service)
        assert "CANARY" not in service.environment
        assert token not in service.environment.values()


def test_mlflow_is_not_served_without_what_keeps_it_closed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MLFLOW_AUTH_ADMIN_PASSWORD", raising=False)
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "sqlite:///none.db")
    with pytest.raises(SystemExit, match="MLFLOW_AUTH_ADMIN_PASSWORD"):
        serve.main(["--auth"])


def test_mlflows_settings_of_auth_keep_any_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    uri = "postgresql+pg8000://mlflow:a%40b@postgres:5432/mlflow"
    path = serve.auth_settings(uri)
    assert private(path)
    settings = configparser.ConfigParser()  # as MLflow reads it
    settings.read(path)
    assert settings["mlflow"]["database_uri"] == uri


def test_composes_secrets_are_made_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "secrets"
    secrets.main(folder)
    made = {path.name: path.read_text() for path in folder.iterdir()}
    secrets.main(folder)
    assert made == {path.name: path.read_text() for path in folder.iterdir()}
    assert all(private(folder / name) for name in made)
    assert made["postgres"] in made["mlflow.env"]
    shown = capsys.readouterr().out
    assert not any(
        line.partition("=")[2] in shown for line in made["ray.env"].splitlines() if "SECRET" in line
    )
    compose = (Path(__file__).parents[3] / "infra" / "compose.yaml").read_text()
    assert all(f".secrets/{name}" in compose for name in made if name != "client.env")
    assert os.access(folder, os.X_OK)
