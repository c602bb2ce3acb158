"""MLflow is served closed, and its settings keep any password."""

import configparser
from pathlib import Path

import pytest

from infra.mlflow import serve
from tests.support.permissions import is_private


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
    assert is_private(path)
    settings = configparser.ConfigParser()  # as MLflow reads it
    settings.read(path)
    assert settings["mlflow"]["database_uri"] == uri
