"""Test that tables hold the scores, and that every rendering shows the same numbers."""

import csv
import io
import json
import re

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table as RichTable

from orchestrator.records.repository import Repository
from orchestrator.records.results import load_chains
from orchestrator.report.chain_tables import (
    breakdown_table,
    class_table,
    forgetting_table,
    summary_table,
)
from orchestrator.report.render import to_csv, to_json, to_markdown, to_terminal
from orchestrator.report.table import Column, Row, Table, percent
from training.methods import fine_tuning
from training.metrics import Confusion, mib, plop, wilson

ALL_TABLES = [class_table, summary_table, forgetting_table, breakdown_table]


def printed(table: Table, width: int) -> str:
    out = io.StringIO()
    Console(width=width, file=out, color_system=None).print(*to_terminal(table, width), sep="\n")
    return out.getvalue()


@pytest.fixture(scope="module")
def chains(demo_chains):
    return demo_chains


def by_name(table: Table | None) -> dict[str, tuple]:
    assert table is not None
    return {row.name: row.values for row in table.rows}


def test_the_table_of_a_case_worked_out_by_hand(store, publish_chain) -> None:
    """Step 0 learns class 1, step 1 class 2. The image has 10 pixels of each, and void."""
    first = Confusion(
        *np.array(
            [(0, 0, 0, 10), (0, 1, 1, 8), (0, 1, 0, 2), (0, 2, 0, 5), (0, 2, 1, 5), (0, 255, 1, 99)]
        ).T
    )
    second = Confusion(
        *np.array(
            [
                (0, 0, 0, 10),
                (0, 1, 1, 5),
                (0, 1, 0, 1),
                (0, 1, 2, 4),
                (0, 2, 2, 10),
                (0, 255, 2, 99),
            ]
        ).T
    )
    record = publish_chain(
        store,
        "demo",
        groups=((1,), (2,)),
        method=fine_tuning.Config(),
        names=("cat", "dog"),
        confusions=[first, second],
    )
    chains = load_chains(Repository(store), [record])
    rows = by_name(class_table(chains, wilson()))
    background, cat, cat_after, dog = 15 / 22, 8 / 15, 5 / 10, 10 / 14
    assert rows == {
        "background": pytest.approx((background, 10 / 11)),
        "cat": pytest.approx((cat, cat_after)),
        "dog": ("x", pytest.approx(dog)),
        "old": (None, pytest.approx(cat_after)),
        "old with background": (None, pytest.approx((10 / 11 + cat_after) / 2)),
        "new": pytest.approx((cat, dog)),
        "all": pytest.approx((cat, (cat_after + dog) / 2)),
        "all with background": pytest.approx(
            ((background + cat) / 2, (10 / 11 + cat_after + dog) / 3)
        ),
        "pixel accuracy": pytest.approx((23 / 30, 25 / 30)),
    }
    assert by_name(class_table(chains, mib()))["background"] == pytest.approx((10 / 12, 10 / 11)), (
        "the dog is left out"
    )
    summary = by_name(summary_table(chains, wilson()))["demo"]
    forgotten = cat - cat_after
    assert summary[5:8] == pytest.approx((forgotten, forgotten, -forgotten))
    assert by_name(breakdown_table(chains, wilson()))["cat"] == pytest.approx((0.5, 0.1, 0.4, 0.0))
    assert by_name(forgetting_table(chains, wilson()))["group of step 0"] == pytest.approx(
        (forgotten, forgotten)
    )


def json_percent(value: float | str | None) -> str:
    """Return a value of a JSON table as the other renderings print it."""
    return percent(value / 100 if isinstance(value, float) else value)


def markdown_cells(line: str) -> list[str]:
    """Return the cells of a line of a Markdown table, without the marks of bold ones."""
    return [cell.strip(" *") for cell in line.split("|")[1:-1]]


def headers(part: RichTable) -> list[str]:
    """Return the headings of a terminal table's columns, without that of the row names."""
    return [str(column.header) for column in part.columns[1:]]


@pytest.mark.parametrize("build", ALL_TABLES)
@pytest.mark.parametrize("width", [60, 100, 400])
def test_every_rendering_shows_the_same_numbers(chains, build, width) -> None:
    table = build(chains, wilson())
    expected = [list(map(percent, row.values)) for row in table.rows]
    document = to_json(table)
    assert [list(map(json_percent, row["values"])) for row in document["rows"]] == expected
    json.dumps(document, allow_nan=False)
    assert [line[2:] for line in csv.reader(io.StringIO(to_csv(table)))][1:] == expected
    body = [line for line in to_markdown(table).splitlines() if line.startswith("|")][2:]
    assert [markdown_cells(line)[-len(table.columns) :] for line in body] == expected
    cells = re.findall(r"(?<=\s)(?:-?\d+\.\d|x|–)(?=\s)", printed(table, width))
    assert sorted(cells) == sorted(cell for row in expected for cell in row)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_terminal_tables_fit_their_width(chains, width) -> None:
    for build in ALL_TABLES:
        text = printed(build(chains, wilson()), width)
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= width


def test_a_table_too_wide_is_broken_between_chains(chains) -> None:
    table = class_table(chains, wilson())
    parts = to_terminal(table, 60)
    assert [headers(part) for part in parts] == [
        ["WILSON\nstep 0", "WILSON\nstep 1", "MiB\nstep 0", "MiB\nstep 1"],
        ["fine-tuning\nstep 0", "fine-tuning\nstep 1"],
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.12345, "12.3"),
        (0.9996, "100.0"),
        (0.0, "0.0"),
        (-0.0001, "0.0"),
        (-0.25, "-25.0"),
        (None, "–"),
        ("x", "x"),
    ],
)
def test_one_rounding_rule(value, text) -> None:
    assert percent(value) == text


def test_classes_not_learned_yet_read_x(chains) -> None:
    rows = by_name(class_table(chains, wilson()))
    assert [percent(value) for value in rows["7"]][::2] == ["x"] * 3
    assert "x" not in rows["0"]


def test_the_convention_is_in_words_and_its_means_are_bold(chains) -> None:
    for convention, bold in (
        (wilson(), ["old", "new", "all with background"]),
        (mib(), ["old", "new", "all"]),
        (plop(), ["old with background", "new", "all with background"]),
    ):
        table = class_table(chains, convention)
        assert [row.name for row in table.rows if row.strong] == bold
        for build in ALL_TABLES:
            assert convention.words in to_markdown(build(chains, convention))
        assert "Void pixels in training: background." in table.caption


def test_longer_chains_show_base_and_added_classes(store, publish_chain) -> None:
    chains = load_chains(
        Repository(store), [publish_chain(store, "demo", groups=((1, 2, 3, 4), (5, 6), (7, 8, 9)))]
    )
    table = class_table(chains, wilson())
    rows = by_name(table)
    scores = chains[0].scores(wilson())
    assert rows["base"] == tuple(step.miou_base for step in scores)
    assert rows["added"] == (None, scores[1].miou_new, scores[2].miou_added)
    # Papers print these as old after all steps.
    for convention, old in ((wilson(), "base"), (plop(), "base with background")):
        assert [row.name for row in class_table(chains, convention).rows if row.strong][:2] == [
            old,
            "added",
        ]
    glance = summary_table(chains, plop())
    last = chains[0].scores(plop())[-1]
    shown = {
        column.name: value
        for column, value in zip(glance.columns, glance.rows[0].values, strict=True)
    }
    assert (shown["base with background"], shown["old"]) == (
        last.miou_base_with_background,
        last.miou_old,
    )
    assert [section for section, _ in table.sections] == [
        "",
        *(f"learned in step {step}" for step in range(3)),
        "means",
    ]


def test_chains_of_different_groups_stand_side_by_side(store, publish_chain) -> None:
    records = [
        publish_chain(store, "6-4"),
        publish_chain(store, "8-2", groups=((1, 2, 3, 4, 5, 6, 7, 8), (9, 10))),
    ]
    rows = by_name(class_table(load_chains(Repository(store), records), wilson()))
    assert [value == "x" for value in rows["6"]] == [True, False, False, False]
    assert [value == "x" for value in rows["9"]] == [True, False, True, False]


def test_a_chain_of_one_step_has_nothing_to_forget(store, publish_chain) -> None:
    chains = load_chains(Repository(store), [publish_chain(store, "base", groups=((1, 2, 3),))])
    assert forgetting_table(chains, wilson()) is None
    assert breakdown_table(chains, wilson()) is None
    assert by_name(summary_table(chains, wilson()))["base"][5:8] == (None, None, None)


def test_markdown_survives_bars_in_names() -> None:
    table = Table("t", "c", "class", (Column("a|b", "step 0"),), (Row("", "cat|dog", (0.5,)),))
    assert "| cat\\|dog | 50.0 |" in to_markdown(table)
