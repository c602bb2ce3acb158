"""The secrets of the containers are made once, and only their owner reads them."""

import os
from pathlib import Path

import pytest

from infra.local import secrets
from tests.support.paths import ROOT
from tests.support.permissions import is_private


def test_composes_secrets_are_made_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "secrets"
    secrets.main(folder)
    made = {path.name: path.read_text() for path in folder.iterdir()}
    secrets.main(folder)
    assert made == {path.name: path.read_text() for path in folder.iterdir()}
    assert all(is_private(folder / name) for name in made)
    assert made["postgres"] in made["mlflow.env"]
    shown = capsys.readouterr().out
    assert not any(
        line.partition("=")[2] in shown for line in made["ray.env"].splitlines() if "SECRET" in line
    )
    compose = (ROOT / "infra" / "compose.yaml").read_text()
    assert all(f".secrets/{name}" in compose for name in made if name != "client.env")
    assert os.access(folder, os.X_OK)
