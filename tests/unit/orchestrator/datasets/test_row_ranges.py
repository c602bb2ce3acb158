"""Byte ranges are joined where another request would cost more."""

import pytest

from orchestrator.datasets.row_ranges import merged


def test_ranges_are_merged_where_the_gap_is_cheap(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("orchestrator.datasets.row_ranges.REQUEST_BYTES", 10)
    assert merged([(100, 5), (0, 20), (30, 10), (50, 1), (5, 3)]) == [(0, 51), (100, 5)]
