"""Statistics over seeds agree with SciPy's, and names show what variants differ in."""

import numpy as np
import pytest
from scipy import stats

from orchestrator.planning.campaign import sweep
from orchestrator.planning.fields import with_field
from orchestrator.planning.variants import group_variants
from orchestrator.report.statistics import student_t, summarize
from stepchain.presets import digits_lwf, digits_mib, digits_wilson
from tests.support.encoders import small_model


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 10, 29, 100, 999])
def test_student_t(freedom: int):
    assert student_t(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-10)
    assert student_t(freedom, 0.5) == pytest.approx(stats.t.ppf(0.75, freedom), rel=1e-10)


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_spread_is_what_scipy_finds(count: int):
    values = np.random.default_rng(count).normal(0.6, 0.02, count)
    found = summarize(values.tolist())
    assert found is not None
    assert found.deviation is not None
    assert found.margin is not None
    low, high = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
    assert (found.mean, found.deviation) == (
        pytest.approx(values.mean()),
        pytest.approx(values.std(ddof=1)),
    )
    assert (found.mean - found.margin, found.mean + found.margin) == pytest.approx((low, high))


def test_a_single_value_spreads_not_at_all():
    assert summarize([0.5]) == (0.5, None, None)
    assert summarize([None, 0.5, None]) == (0.5, None, None)
    assert summarize([None]) is None
    assert summarize([]) is None
    assert summarize([0.5, 0.5]) == (0.5, 0, 0)


def test_seeds_are_repetitions_of_one_variant():
    wanted = sweep(digits_wilson(), {"seed": (1, 2, 3), "method.alpha": (0, 0.5)})
    assert group_variants(wanted) == (
        ("alpha=0", (0, 2, 4), {"method.alpha": 0}),
        ("alpha=0.5", (1, 3, 5), {"method.alpha": 0.5}),
    )


def test_the_same_seed_under_two_names_counts_once():
    one = digits_wilson()
    assert [
        variant.chains
        for variant in group_variants(
            [one, with_field(one, "name", "again"), with_field(one, "seed", 7)]
        )
    ] == [(0, 2)]


def test_a_single_variant_is_called_by_its_method():
    assert [variant.name for variant in group_variants([digits_wilson()])] == ["wilson"]


def test_what_follows_from_the_method_is_not_in_the_name():
    """Methods differ in base, supervision and own fields. Alpha distinguishes WILSON's only."""
    soft = with_field(digits_wilson(), "method.alpha", 0)
    assert [variant.name for variant in group_variants([digits_mib(), digits_lwf(), soft])] == [
        "mib",
        "lwf",
        "wilson",
    ]
    names = [variant.name for variant in group_variants([digits_lwf(), soft, digits_wilson()])]
    assert names == ["lwf", "wilson alpha=0", "wilson alpha=0.5"], (
        "alpha distinguishes variants of wilson, and lwf has one"
    )


def test_fields_of_one_name_are_shown_in_full():
    starts = sweep(
        digits_mib(), {"base.optimization.epochs": (5, 10), "optimization.epochs": (5, 10)}
    )
    assert [variant.name for variant in group_variants(starts)][
        1
    ] == "optimization.epochs=10 base.optimization.epochs=5"


def test_encoders_of_transformers_are_told_apart_by_their_kind():
    pytest.importorskip("transformers")
    models = [small_model("swin"), small_model("dinov2"), small_model("swin", "stage3", "stage4")]
    models[2] = models[2].model_copy(update={"output_stride": 16})
    chains = [with_field(digits_mib(), "model", model) for model in models]
    names = [variant.name for variant in group_variants(chains)]
    assert names == [
        "model_type=swin output_stride=32",
        "model_type=dinov2 output_stride=14",
        "model_type=swin output_stride=16",
    ]


def test_groups_are_told_apart_by_their_sizes_where_that_is_enough():
    six, eight = (tuple("012345"), tuple("6789")), (tuple("01234567"), tuple("89"))
    other = (tuple("987654"), tuple("3210"))
    assert [
        c.name for c in group_variants(sweep(digits_mib(), {"scenario.groups": (six, eight)}))
    ] == ["split=6-4", "split=8-2"]
    orders = sweep(digits_mib(), {"scenario.groups": {"up": six, "down": other}})
    assert [c.name for c in group_variants(orders)] == [
        "groups=0,1,2,3,4,5|6,7,8,9",
        "groups=9,8,7,6,5,4|3,2,1,0",
    ]


def test_names_that_people_gave_are_kept():
    """Words after the campaign's name that are no axis of a sweep, if they are unique."""
    plain = with_field(digits_mib(), "name", "campaign plain seed=42")
    soft = with_field(
        with_field(digits_mib(), "method.alpha", 0.5), "name", "campaign softer targets seed=42"
    )
    assert [variant.name for variant in group_variants([plain, soft])] == [
        "plain",
        "softer targets",
    ]
    assert [
        variant.name
        for variant in group_variants([plain, with_field(soft, "name", "campaign plain")])
    ] == ["alpha=1", "alpha=0.5"]
