"""Which steps all samples of a search share follows from its fields, not from what is drawn."""

from typing import Any

import pytest
from ray import tune

from orchestrator.planning.campaign import sweep
from orchestrator.planning.planner import Planner
from orchestrator.planning.search_plan import first_own_step
from stepchain.presets import digits_wilson
from tests.support.campaigns import publish_digits


@pytest.fixture(scope="module")
def planner(tmp_path_factory: pytest.TempPathFactory) -> Planner:
    return Planner(publish_digits(tmp_path_factory.mktemp("digits")))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("axes", "first"),
    [
        ({"base.optimization.epochs": tune.choice((1, 2))}, 0),
        ({"method.alpha": tune.uniform(0, 1), "base.optimization.epochs": tune.choice((1, 2))}, 0),
        ({"method.alpha": tune.choice((0.5, 1.0)), "optimization.epochs": tune.randint(1, 3)}, 1),
        ({"method.alpha": tune.choice((0.5,))}, 1),
    ],
)
def test_the_first_step_of_a_samples_own(
    planner: Planner, axes: dict[str, Any], seed: int, first: int
) -> None:
    search = sweep(digits_wilson(), axes, samples=4, sampling_seed=seed, search="optuna")
    assert first_own_step(search, planner) == first
