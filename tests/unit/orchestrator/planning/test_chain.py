"""A plan sets the recipes of a chain's methods, and a record keeps the ones it was trained by."""

from pathlib import Path

import pytest

from orchestrator.datasets.catalog import publish
from orchestrator.planning.chain import Base, Chain, with_current_recipes
from orchestrator.planning.planner import Planner
from orchestrator.store.canonical import canonical_json
from orchestrator.store.open import open_store
from stepchain.presets import digits_lwf
from tests.support.datasets import build_dataset
from training.config import InputError
from training.data.digits import Digits
from training.methods import fine_tuning, lwf


class Raised(lwf.Config):
    """LwF as if its code had changed twice for one setting."""

    @property
    def current_recipe(self) -> int:
        return 3 if self.alpha == 1 else 1


def changed(method: lwf.Config) -> Chain:
    return digits_lwf().model_copy(update={"method": method})


def test_only_the_part_that_changed_gets_its_recipe() -> None:
    chain = with_current_recipes(changed(Raised()))
    assert chain.method.recipe == 3
    assert chain.base.method.recipe == 1
    assert with_current_recipes(changed(Raised(alpha=2))).method.recipe == 1


def test_the_base_step_has_a_recipe_of_its_own() -> None:
    class Base3(fine_tuning.Config):
        @property
        def current_recipe(self) -> int:
            return 3

    chain = digits_lwf().model_copy(update={"base": Base(method=Base3())})
    assert with_current_recipes(chain).base.method.recipe == 3


def test_a_planned_chain_can_be_planned_again() -> None:
    once = with_current_recipes(changed(Raised()))
    assert with_current_recipes(once) == once


def test_a_person_cannot_choose_a_recipe() -> None:
    with pytest.raises(InputError, match=r"recipe 2, and this code trains recipe 3: leave the"):
        with_current_recipes(changed(Raised(recipe=2)))


def test_the_first_recipe_is_no_part_of_the_canonical_json() -> None:
    assert b"recipe" not in canonical_json(lwf.Config())
    assert b'"recipe":2' in canonical_json(lwf.Config(recipe=2))


def test_a_recorded_chain_keeps_its_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPCHAIN_CACHE", str(tmp_path / "cache"))
    store = open_store(str(tmp_path / "store"))
    manifest, _ = build_dataset(Digits(train=60, val=4), tmp_path / "built")
    publish(store, "digits", tmp_path / "built", manifest)
    chain = changed(Raised())
    recorded = Planner(store, recorded=True).plan(chain)
    again = Planner(store).plan(chain)
    assert [step.step.method.recipe for step in recorded.steps] == [1, 1]
    assert [step.step.method.recipe for step in again.steps] == [1, 3]
    assert again.chain.method.recipe == 3
    assert recorded.steps[0].key == again.steps[0].key
    assert recorded.steps[1].key != again.steps[1].key
