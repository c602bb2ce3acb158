"""Test that planning thousands of chains repeats nothing expensive."""

from pathlib import Path
from typing import Any

import pytest

import orchestrator.planning.image_selection
import orchestrator.planning.planner
import orchestrator.planning.resolver
from orchestrator.datasets.catalog import publish
from orchestrator.planning.campaign import Campaign, sweep
from orchestrator.planning.campaign_plan import plan_tree
from orchestrator.planning.planner import Planner
from orchestrator.planning.store_state import look_up_steps
from orchestrator.store.base import Store
from orchestrator.store.folder import FolderStore
from orchestrator.store.open import open_store
from stepchain.presets import digits_wilson
from tests.support.datasets import build_dataset
from training.data.digits import Digits


@pytest.fixture
def digits(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path / "store"))
    manifest, _ = build_dataset(Digits(train=60, val=4), tmp_path / "built")
    publish(store, "digits", tmp_path / "built", manifest)
    return store


def test_thousands_of_chains_share_what_is_expensive(
    digits: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Nothing expensive grows with the number of chains: this counts what could."""
    monkeypatch.setenv("STEPCHAIN_CACHE", str(tmp_path))
    calls: dict[str, int] = {}

    def count(module: Any, name: str) -> None:
        function = getattr(module, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            calls[name] = calls.get(name, 0) + 1
            return function(*arguments, **options)

        monkeypatch.setattr(module, name, counted)

    for module, name in (
        (orchestrator.planning.planner, "load_index"),
        (orchestrator.planning.planner, "check_encoder"),
        (orchestrator.planning.image_selection, "select_images"),
        (orchestrator.planning.resolver, "step_key"),
        (FolderStore, "read"),
    ):
        count(module, name)
    numbers = [number / 200 for number in range(200)]
    chains = sweep(digits_wilson(), {"method.alpha": numbers, "seed": range(10)})
    tree = plan_tree(Campaign("many", "", chains), Planner(digits))
    assert (len(tree.chains), len(tree.nodes)) == (2000, 2010)
    assert calls["step_key"] == 2010
    assert (calls["load_index"], calls["check_encoder"], calls["select_images"]) == (1, 1, 2)
    planned = calls["read"]
    assert planned <= 4
    look_up_steps(tree, digits)
    # Only the record and the lease of each root can exist.
    assert calls["read"] - planned == 2 * 10
