"""Check that MLflow learns how a campaign ended, whenever it is interrupted."""

from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.campaigns import recording


def test_an_interruption_while_results_are_read_ends_the_run(monkeypatch: pytest.MonkeyPatch):
    read: list[Any] = []

    def load(*_: Any) -> None:
        read.append(None)
        # The first time is before the campaign runs.
        if len(read) == 2:
            raise KeyboardInterrupt(2)

    reported: list[Any] = []
    monkeypatch.setattr(recording, "publish_campaign", lambda *_: None)
    monkeypatch.setattr(recording, "Repository", lambda *_: None)
    monkeypatch.setattr(recording, "load_campaign_results", load)
    monkeypatch.setattr(recording, "campaign_runs", lambda record, results, unfinished: unfinished)
    made_up: Any = SimpleNamespace(
        store=None, convention=None, campaign=None, whole_tree=None, report=reported.append
    )
    with pytest.raises(KeyboardInterrupt), recording.recorded(made_up, made_up, made_up):
        pass
    assert reported == ["RUNNING", "KILLED"]
