"""The services of a local cluster get secrets neither by command line nor from the shell."""

from pathlib import Path

import pytest

from infra.local.services import services
from infra.local.settings import Settings


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
