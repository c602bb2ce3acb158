"""Test sweeps: products over any fields, checked chains, and clear messages for bad values."""

from itertools import product
from typing import Any

import pytest

from orchestrator.planning.campaign import Campaign, sweep
from orchestrator.planning.fields import with_field
from stepchain.presets import digits_mib, digits_wilson
from training.config import InputError, Optimization
from training.methods import lwf, mib


def test_a_sweep_is_the_product_of_its_axes():
    chains = sweep(
        digits_wilson(),
        {"method.alpha": (0, 0.5), "scenario.setting": ("disjoint", "overlap"), "seed": range(2)},
    )
    values = [
        (chain.method.model_dump()["alpha"], chain.scenario.setting, chain.seed) for chain in chains
    ]
    assert values == list(product((0, 0.5), ("disjoint", "overlap"), (0, 1)))
    assert chains[1].name == "digits_wilson alpha=0 setting=disjoint seed=1"
    first, second = (chain.model_copy(update={"name": "", "seed": 0}) for chain in chains[:2])
    assert first == second


def test_nothing_but_the_axes_changes():
    (chain,) = sweep(digits_wilson(), {"optimization.epochs": [3]})
    assert chain.name == "digits_wilson epochs=3"
    assert (
        with_field(with_field(chain, "optimization.epochs", 10), "name", "digits_wilson")
        == digits_wilson()
    )


def test_whole_documents_are_values_too_and_later_axes_see_them():
    chains = sweep(
        digits_mib(),
        {"method": (mib.Config(), lwf.Config()), "method.distillation_weight": (5, 10)},
    )
    assert [chain.name for chain in chains][::3] == [
        "digits_mib method=mib distillation_weight=5",
        "digits_mib method=lwf distillation_weight=10",
    ]
    assert chains[3].method == lwf.Config(distillation_weight=10)


def test_class_groups_read_by_their_sizes():
    digits = tuple("0123456789")
    (chain,) = sweep(digits_mib(), {"scenario.groups": [(digits[:4], digits[4:7], digits[7:])]})
    assert chain.name == "digits_mib groups=4-3-3"


def test_a_mapping_gives_values_their_names():
    methods = {"as published": mib.Config(), "weak": mib.Config(distillation_weight=1)}
    assert [chain.name for chain in sweep(digits_mib(), {"method": methods})] == [
        "digits_mib method=as published",
        "digits_mib method=weak",
    ]
    with pytest.raises(
        InputError, match=r"two values of axis 'method' are shown as 'mib': give them names"
    ):
        sweep(digits_mib(), {"method": tuple(methods.values())})


def test_fields_of_the_same_name_are_told_apart():
    (chain,) = sweep(
        digits_wilson(), {"base.optimization.epochs": [1], "optimization.epochs": [2], "seed": [3]}
    )
    assert chain.name == "digits_wilson base.optimization.epochs=1 optimization.epochs=2 seed=3"


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"method.aplha": [0.5]}, "no field 'method.aplha': did you mean 'method.alpha'?"),
        ({"metho.alpha": [0.5]}, "did you mean 'method.alpha'?"),
        ({"base.optimization.epoch": [1]}, "did you mean 'base.optimization.epochs'?"),
        ({"seed.zzz": [1]}, "42 has no fields"),
        ({"scenario.zzz": [1]}, "where it says 'zzz' there are dataset, groups"),
        (
            {"method.alpha": [0.5, 7]},
            "method.alpha cannot be 7: Input should be less than or equal to 1",
        ),
        ({"scenario.groups": [(("1",), ("1",))]}, "class '1' stands in the groups twice"),
        ({"seed": []}, "axis 'seed' has no values"),
        ({"seed": [1, 1]}, "two values of axis 'seed' are shown as '1'"),
    ],
)
def test_mistakes_are_named(axes: dict[str, Any], message: str):
    with pytest.raises(InputError) as error:
        sweep(digits_wilson(), axes)
    assert message in str(error.value)


def test_names_in_a_campaign_are_unique():
    chain = digits_wilson()
    other = chain.model_copy(update={"optimization": Optimization(epochs=1)})
    with pytest.raises(InputError, match="two chains of campaign 'q' are called 'digits_wilson'"):
        Campaign("q", "", (chain, other))
    with pytest.raises(InputError, match="no chains"):
        Campaign("q", "", ())
    assert len(Campaign("q", "", (chain, chain.model_copy(update={"name": "again"}))).chains) == 2
