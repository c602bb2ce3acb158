"""What people are shown of an address has no password."""

import pytest

from orchestrator.store.passwords import without_passwords


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at http://ada:secret@host:80/x, and s3://b/y", "at http://host:80/x, and s3://b/y"),
        ("postgresql://ada:p@ss@host/db", "postgresql://host/db"),
        ("http://host/x?mail=a@b", "http://host/x?mail=a@b"),
    ],
)
def test_only_user_and_password_are_left_out(text: str, shown: str) -> None:
    assert without_passwords(text) == shown
