"""A job says where it can be seen and how to go on, and shows no password."""

import io
import sys

import pytest
from rich.console import Console

from jobs.options import JobOptions
from orchestrator.store.open import open_store


def announced(monkeypatch: pytest.MonkeyPatch, tmp_path, job: str | None, **given) -> str:
    monkeypatch.setattr(
        sys,
        "orig_argv",
        ["/usr/bin/python3", "-m", "jobs.train", "digits_mib", "--name", "two words"],
    )
    monkeypatch.setattr("orchestrator.records.provenance.submission", lambda: job)
    monkeypatch.setattr(
        "orchestrator.cluster.connection.dashboard_address", lambda: "http://127.0.0.1:8265"
    )
    console = Console(file=io.StringIO(), width=40)
    JobOptions(**given).announce(open_store(str(tmp_path)), console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_on_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path):
    shown = announced(monkeypatch, tmp_path, None, tracking_uri="https://me:hush@mlflow.example")
    assert shown.splitlines() == [
        f"store     {tmp_path}",
        "MLflow    https://mlflow.example",
        "resume by python -m jobs.train digits_mib --name 'two words'",
    ]


def test_as_a_submitted_job(monkeypatch: pytest.MonkeyPatch, tmp_path):
    shown = announced(monkeypatch, tmp_path, "train-1", tracking=False)
    assert shown.splitlines()[1:] == [
        "Ray       http://127.0.0.1:8265/#/jobs/train-1",
        "resume by python -m jobs.submit -- python -m jobs.train digits_mib --name 'two words'",
    ]
