"""The settings of a local cluster are made once, and only their owner reads them."""

from pathlib import Path

import pytest

from infra.local.settings import Settings
from tests.support.permissions import is_private


def test_secrets_and_ports_are_made_once_and_only_their_owner_reads_them(tmp_path: Path):
    first = Settings.open(tmp_path / "cluster", workers=2, database="sqlite")
    again = Settings.open(tmp_path / "cluster")
    assert first == again
    assert first.secret_key != Settings.open(tmp_path / "other", database="sqlite").secret_key
    first.write_environment()
    for name in ("settings.json", "token", "environment"):
        assert is_private(first.folder / name), name
    with pytest.raises(SystemExit, match="sqlite"):
        Settings.open(first.folder, database="postgres")
