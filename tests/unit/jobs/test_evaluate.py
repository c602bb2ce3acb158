"""A published step's counts are shown under any convention, and nothing is scored again."""

from typing import Any

import pytest

from jobs.evaluate import main
from orchestrator.datasets.catalog import publish
from orchestrator.records.schema import EvaluationRecord
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from tests.support.datasets import build_dataset
from training.data.digits import Digits
from training.metrics import mib, plop, wilson


@pytest.fixture
def store(tmp_path, publish_chain, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Return a store with digits, and a chain whose steps are scored already."""
    store = open_store(str(tmp_path / "store"))
    publish(
        store,
        "digits",
        tmp_path / "built",
        build_dataset(Digits(train=12, val=4), tmp_path / "built")[0],
    )
    publish_chain(store, "demo")

    def scored(record: Any, *_: Any) -> EvaluationRecord:
        (name,) = [
            name for name in store.list(f"evaluations/{record.key}/") if name.endswith(".json")
        ]
        return EvaluationRecord.model_validate_json(store.read(name))

    monkeypatch.setattr("orchestrator.execution.evaluate.ensure_evaluation", scored)
    return store


@pytest.mark.parametrize(
    "convention", [wilson(), mib(), plop()], ids=lambda convention: convention.name
)
def test_the_convention_that_is_asked_for_is_printed(
    store: Store, capsys: pytest.CaptureFixture[str], convention
):
    main(["demo:1", "--store", store.uri, "--convention", convention.name])
    printed = " ".join(capsys.readouterr().out.split())
    assert convention.words in printed
    assert "Void pixels in training: background." in printed


def test_another_convention_gives_other_numbers(store: Store, capsys: pytest.CaptureFixture[str]):
    """After the first of two steps some pixels belong to classes of the future."""
    rows = {}
    for name in ("wilson", "mib"):
        main(["demo:0", "--store", store.uri, "--convention", name])
        lines = capsys.readouterr().out.splitlines()
        rows[name] = next(
            line
            for line in lines
            if "background" in line and "%" not in line and line.split()[-1][0].isdigit()
        )
    assert rows["wilson"] != rows["mib"]
