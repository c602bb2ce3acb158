"""Test the tables of kept scores: averages, shares, and differences seed by seed."""

import pytest

from orchestrator.report.kept_scores import KeptCampaign, KeptStep, KeptVariant
from orchestrator.report.kept_tables import Wanted, kept_table
from orchestrator.report.table import Measured, Table, percent
from training.config import InputError


def variant(name: str, **chains: str) -> KeptVariant:
    """Return a variant whose chains end at these steps, by seed."""
    published = {int(seed[1:]): (f"base{seed[1:]}", key) for seed, key in chains.items()}
    return KeptVariant(name=name, asked=(5, 8), chains=published)


def base(seed: int) -> KeptStep:
    """Return a step 0 that learned class 1, and gets `seed` tenths of it right."""
    pixels = {0: (100, 0), 1: (100 - 10 * seed, 10 * seed), 2: (100, 0)}
    return kept_step(f"base{seed}", ((1,),), pixels)


def later(key: str, old: int, new: int) -> KeptStep:
    """Return a step that learned class 2, and gets this many of 100 pixels right."""
    pixels = {0: (100, 0, 0), 1: (0, old, 100 - old), 2: (100 - new, 0, new), 255: (7, 0, 0)}
    return kept_step(key, ((1,), (2,)), pixels)


def kept_step(key: str, groups: tuple, pixels: dict) -> KeptStep:
    return KeptStep(
        key=key,
        index=len(groups) - 1,
        commit=None,
        iterations=1,
        train_seconds=3600,
        groups=groups,
        pixels=pixels,
    )


KEPT = KeptCampaign(
    campaign="hardness",
    scored_on="",
    variants=(
        variant("alpha=0 prior=bce", s5="a5", s8="a8"),
        variant("alpha=1 prior=bce", s5="b5", s8="b8"),
        variant("alpha=1 prior=fixed", s8="c8"),
        variant("alpha=0 prior=fixed"),
    ),
    steps=(
        base(5),
        base(8),
        later("a5", 50, 50),
        later("a8", 70, 100),
        later("b5", 60, 50),
        later("b8", 90, 100),
        later("c8", 40, 100),
    ),
)


def cells(table: Table) -> dict[str, dict[str, str]]:
    """Return the printed cells by row and column."""
    names = [f"{column.group}{column.name}" for column in table.columns]
    return {row.name: dict(zip(names, map(percent, row.values), strict=True)) for row in table.rows}


def test_seeds_are_averaged_and_missing_ones_counted() -> None:
    rows = cells(kept_table(KEPT, Wanted()))
    assert list(rows) == [
        "alpha=0 prior=bce",
        "alpha=1 prior=bce",
        "alpha=1 prior=fixed (1 of 2 seeds)",
        "alpha=0 prior=fixed (0 of 2 seeds)",
    ]
    soft = rows["alpha=0 prior=bce"]
    assert soft["step 0"] == "65.0 ± 21.2"
    assert soft["old"] == "60.0 ± 14.1"
    # 50 of 100 + 50 pixels of the union, and 100 of 100 + 30.
    assert soft["new"] == percent(Measured((1 / 3 + 1 / 1.3) / 2, (1 / 1.3 - 1 / 3) / 2**0.5))
    assert rows["alpha=1 prior=fixed (1 of 2 seeds)"]["old"] == "40.0"
    assert set(rows["alpha=0 prior=fixed (0 of 2 seeds)"].values()) == {"–"}


def test_shares_of_old_pixels() -> None:
    row = cells(kept_table(KEPT, Wanted(breakdown=True)))["alpha=1 prior=fixed (1 of 2 seeds)"]
    shares = ("right", "as background", "as new", "as other old")
    assert [row[name] for name in shares] == ["40.0", "0.0", "60.0", "0.0"]


def test_differences_are_taken_between_chains_of_one_seed() -> None:
    table = kept_table(KEPT, Wanted(against="alpha=0 prior=bce"))
    rows = cells(table)
    assert rows["alpha=1 prior=bce"]["Δold"] == "15.0 ± 7.1"
    assert rows["alpha=1 prior=fixed (1 of 2 seeds)"]["Δold"] == "-30.0"
    assert rows["alpha=0 prior=bce"]["Δold"] == "–"
    assert "minus alpha=0 prior=bce of the same seed" in table.caption


def test_an_axis_gives_each_variant_its_own_reference() -> None:
    rows = cells(kept_table(KEPT, Wanted(against="prior=bce")))
    assert rows["alpha=1 prior=fixed (1 of 2 seeds)"]["Δold"] == "-50.0"
    assert rows["alpha=1 prior=bce"]["Δold"] == "–"


def test_the_caption_counts_chains_steps_and_hours() -> None:
    assert kept_table(KEPT, Wanted()).caption == (
        "5 of 8 chains; their 7 different steps trained for 7.0 hours."
    )


@pytest.mark.parametrize("against", ["wilson", "prior=constant", "setting=overlap"])
def test_a_reference_that_does_not_exist_is_refused(against: str) -> None:
    with pytest.raises(InputError, match=f"cannot be compared with '{against}'"):
        kept_table(KEPT, Wanted(against=against))
