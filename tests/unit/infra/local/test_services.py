"""The services of a local cluster get secrets neither by command line nor from the shell."""

import json
from pathlib import Path

import pytest

from infra.local.services import services
from infra.local.settings import Settings
from orchestrator.cluster.machines import growth_of
from orchestrator.cluster.packing import Growth, NodeType


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


def test_from_zero_the_head_adds_the_workers(tmp_path: Path):
    pytest.importorskip("swift", reason="the S3 server is not installed")
    Settings.open(tmp_path, workers=3, cpus=2, database="sqlite", from_zero=True)
    settings = Settings.open(tmp_path)  # as kept
    *_, head = services(settings)
    assert head.name == "head"
    assert head.prepare is not None
    head.prepare()
    file = tmp_path / "autoscaler.json"
    assert f"--autoscaling-config={file}" in head.command
    growth = growth_of(json.loads(file.read_text()))
    assert growth == Growth((NodeType("worker", {"CPU": 2}, 3),), 3)
    assert settings.secret_key not in file.read_text()
