"""Test that a campaign's table averages seeds, counts missing ones and compares with papers."""

import math
from collections.abc import Sequence

import pytest

from orchestrator.planning.campaign import Campaign, sweep
from orchestrator.planning.chain import Chain
from orchestrator.planning.fields import with_field
from orchestrator.planning.paper_numbers import Expected
from orchestrator.planning.step_tree import StepTree, build_tree, first_steps
from orchestrator.records.repository import Repository
from orchestrator.report.campaign_results import load_campaign_results
from orchestrator.report.campaign_tables import scores_table
from orchestrator.report.render import to_csv, to_markdown
from orchestrator.report.table import Table
from orchestrator.store.base import Store
from orchestrator.store.cache import CorruptedObject
from stepchain.presets import digits_mib, digits_wilson, voc_mib, voc_wilson
from training.data.voc import VOC_CLASSES
from training.metrics import Convention, mib, plop, wilson
from training.scenario import split_groups

OLD = range(1, 7)  # ids of the digits 0-5
NEW = range(7, 11)  # ids of the digits 6-9


def show(
    tree: StepTree,
    store: Store,
    paper: Sequence[Expected] = (),
    convention: Convention | None = None,
) -> Table:
    chains = tuple(plan.chain for plan in tree.chains)
    campaign = Campaign("scores", "How well?", chains, tuple(paper))
    result = load_campaign_results(campaign, tree, Repository(store), convention or wilson())
    return scores_table(result, mark_best=False)


def by_row(table: Table) -> dict[str, dict[str, object]]:
    """Return values by row, then by the whole name of their column."""
    names = [f"{column.group} {column.name}".strip() for column in table.columns]
    return {row.name: dict(zip(names, row.values, strict=True)) for row in table.rows}


def shares(old: float, new: float) -> dict[int, float]:
    """Return the share of right pixels of each digit."""
    return dict.fromkeys(OLD, old) | dict.fromkeys(NEW, new)


@pytest.fixture
def tree_of(planned):
    """Return a function that builds the tree of some chains."""
    return lambda chains: build_tree([planned(chain) for chain in chains])


def test_seeds_are_averaged(store, tree_of, publish_step):
    tree = tree_of(sweep(digits_wilson(), {"method.alpha": (0, 0.5), "seed": (1, 2, 3)}))
    for plan, old in zip(tree.chains[:4], (0.6, 0.7, 0.8, 0.9), strict=True):
        publish_step(store, plan, plan.steps[0])
        publish_step(store, plan, plan.steps[1], shares(old, 0.5))
    rows = by_row(show(tree, store))
    assert list(rows) == ["alpha=0", "alpha=0.5"]
    assert [row["seeds"] for row in rows.values()] == ["3/3", "1/3"]
    soft = rows["alpha=0"]
    assert (soft["old mean"], soft["old std"]) == (pytest.approx(0.7), pytest.approx(0.1))
    # Student's t for two degrees of freedom is from a printed table.
    assert soft["old 95 % ±"] == pytest.approx(4.302652729911275 * 0.1 / math.sqrt(3))
    assert (soft["new mean"], soft["new std"]) == (pytest.approx(0.5), pytest.approx(0))
    half = rows["alpha=0.5"]
    assert (half["old mean"], half["old std"], half["old 95 % ±"]) == (
        pytest.approx(0.9),
        None,
        None,
    )


def test_a_campaign_not_begun_has_rows_without_numbers(store, tree_of):
    (row,) = by_row(show(tree_of([digits_wilson()]), store)).values()
    assert row == {"seeds": "0/1", "old mean": None, "new mean": None, "all mean": None}


def test_a_chain_half_done_does_not_count(store, tree_of, publish_step):
    tree = tree_of([digits_wilson()])
    publish_step(store, tree.chains[0], tree.chains[0].steps[0])
    assert by_row(show(tree, store))["wilson"]["seeds"] == "0/1"


@pytest.mark.parametrize("convention", [wilson(), mib(), plop()])
def test_the_convention_decides_on_background(store, tree_of, publish_step, convention):
    tree = tree_of([digits_mib()])
    (plan,) = tree.chains
    for step in plan.steps:
        publish_step(store, plan, step, shares(0.6, 0.5))
    (row,) = by_row(show(tree, store, convention=convention)).values()
    # Background has 1,000 pixels. All pixels that were missed of the digits read as background.
    background = 1000 / (1000 + 6 * 400 + 4 * 500)
    old = 6 * 0.6
    every = old + 4 * 0.5
    assert row["new mean"] == pytest.approx(0.5)
    assert row["old mean"] == pytest.approx(
        (old + background) / 7 if convention == plop() else old / 6
    )
    assert row["all mean"] == pytest.approx(
        every / 10 if convention == mib() else (every + background) / 11
    )


def test_longer_chains_set_step_0_against_all_later_steps(store, tree_of, publish_step):
    tree = tree_of(
        [with_field(digits_mib(), "scenario.groups", (tuple("012345"), ("6", "7"), ("8", "9")))]
    )
    (plan,) = tree.chains
    for step in plan.steps:
        publish_step(store, plan, step, shares(0.6, 0.5) | {9: 0.2, 10: 0.2})
    (row,) = by_row(show(tree, store, convention=mib())).values()
    assert (row["old mean"], row["new mean"]) == (pytest.approx(0.6), pytest.approx(0.35))


def test_first_steps_of_chains_have_scores_of_their_own(store, planned, publish_step):
    plan = first_steps(planned(digits_wilson()), 0)
    publish_step(store, plan, plan.steps[0], shares(0.6, 0.5))
    (row,) = by_row(show(build_tree([plan]), store, convention=mib())).values()
    assert (row["seeds"], row["old mean"], row["new mean"]) == ("1/1", None, pytest.approx(0.6))


def published_voc(store, tree_of, publish_step, chain: Chain) -> StepTree:
    tree = tree_of([chain])
    for step in tree.chains[0].steps:
        publish_step(store, tree.chains[0], step, dict.fromkeys(range(1, 21), 0.7))
    return tree


def test_differences_where_the_paper_counts_as_we_do(store, tree_of, publish_step):
    paper = (Expected("WILSON Table 2", "WILSON"), Expected("MiB Table 1", "MiB"))
    chain = with_field(voc_wilson(), "scenario.groups", split_groups("10-10", VOC_CLASSES))
    table = show(published_voc(store, tree_of, publish_step, chain), store, paper)
    (row,) = by_row(table).values()
    assert [row[f"paper {name}"] for name in ("old", "new", "all")] == pytest.approx(
        [0.704, 0.571, 0.65]
    )
    assert row["ours − paper old"] == pytest.approx(0.7 - 0.704)
    assert row["ours − paper new"] == pytest.approx(0.7 - 0.571)
    assert "Paper: WILSON Table 2." in table.caption
    assert "paper: WILSON Table 2, WILSON, convention wilson" in to_markdown(table)
    other = by_row(show(tree_of([chain]), store, paper, mib()))["wilson"]
    assert other["paper all"] == pytest.approx(0.65)
    assert not any(name.startswith("ours") for name in other), "MiB counts otherwise"


def test_a_paper_that_counts_otherwise_is_shown_and_not_subtracted(store, tree_of, publish_step):
    tree = published_voc(store, tree_of, publish_step, voc_mib())
    rows = {
        convention.name: by_row(show(tree, store, (Expected("MiB Table 1", "MiB"),), convention))
        for convention in (mib(), wilson())
    }
    assert rows["mib"]["mib"]["ours − paper all"] == pytest.approx(0.7 - 0.69)
    assert rows["wilson"]["mib"]["paper all"] == pytest.approx(0.69)
    assert "ours − paper all" not in rows["wilson"]["mib"]


def test_digits_have_no_paper(store, tree_of):
    table = show(tree_of([digits_wilson()]), store, (Expected("WILSON Table 1", "WILSON"),))
    assert not any(column.group.startswith(("paper", "ours")) for column in table.columns)
    assert "Paper" not in table.caption


def test_variants_scored_on_other_pixels_stand_apart(store, tree_of):
    table = show(tree_of(sweep(digits_wilson(), {"evaluation.crop": (32, 64)})), store)
    assert [section for section, _ in table.sections] == [
        "digits/val, 300 images, original resolution, centre crop 32.",
        "digits/val, 300 images, original resolution, centre crop 64.",
    ]
    assert "do not compare" in table.caption


def test_damaged_counts_are_noticed(store, tree_of, publish_step):
    tree = tree_of([digits_wilson()])
    for step in tree.chains[0].steps:
        publish_step(store, tree.chains[0], step)
    store.write(
        next(
            key
            for key in store.list(f"evaluations/{tree.chains[0].steps[1].key}/")
            if key.endswith(".parquet")
        ),
        b"x",
    )
    with pytest.raises(CorruptedObject):
        show(tree, store)


def test_a_spreadsheet_reads_the_same(store, tree_of, publish_step):
    tree = tree_of([digits_wilson()])
    for step in tree.chains[0].steps:
        publish_step(store, tree.chains[0], step, shares(0.6, 0.5))
    heading, row = to_csv(show(tree, store)).splitlines()
    assert heading == "section,variant,seeds,old mean,new mean,all mean"
    assert row.startswith(",wilson,1/1,60.0,50.0,")
