"""Test which values are marked as best, and that renderings of deviations agree."""

import csv
from io import StringIO
from operator import attrgetter

import pytest
from rich.console import Console

from orchestrator.report.render import to_csv, to_json, to_latex, to_markdown, to_terminal
from orchestrator.report.table import Column, Measured, Row, Table, percent, with_best

ROWS = {"a": (0.5, 0.2), "b": (Measured(0.7, 0.04), 0.2), "c": (None, 0.1), "d": (0.69999, "x")}


@pytest.fixture
def table() -> Table:
    columns = (Column("old_50% & more", "first"), Column("", "lost"))
    return Table(
        "What_is",
        "It's 5 % ± 1 – “so”.",
        "variant",
        columns,
        tuple(Row("", name, v) for name, v in ROWS.items()),
    )


def best(table: Table) -> dict[str, list[int]]:
    return {row.name: sorted(row.best) for row in table.rows if row.best}


def test_the_best_as_printed_share_it(table) -> None:
    assert best(with_best(table, [0], "    ")) == {"b": [0], "d": [0]}
    assert best(with_best(table, [1], "    ", lowest=[1])) == {"c": [1]}


def test_what_does_not_compare_has_a_best_of_its_own(table) -> None:
    assert best(with_best(table, [0], "1122")) == {"b": [0]}, (
        "a single number is not the best of anything"
    )
    assert best(with_best(table, [0], "1221")) == {"d": [0]}


def test_renderings_agree_on_numbers_and_bold(table) -> None:
    table = with_best(table, [0], "    ")
    assert percent(ROWS["b"][0]) == "70.0 ± 4.0"
    assert "| b | **70.0 ± 4.0** | 20.0 |" in to_markdown(table)
    assert r"b & \textbf{70.0 $\pm$ 4.0} & 20.0 \\" in to_latex(table)
    rows = list(csv.reader(StringIO(to_csv(table))))
    assert rows[0] == [
        "section",
        "variant",
        "old_50% & more first",
        "old_50% & more first std",
        "lost",
    ]
    assert rows[2] == ["", "b", "70.0", "4.0", "20.0"]
    assert rows[1] == ["", "a", "50.0", "–", "20.0"]
    shown = to_json(table)["rows"][1]
    assert (shown["values"], shown["best"]) == ([[70.0, 4.0], 20.0], [0])
    out = StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system="standard")
    console.print(*to_terminal(table, 80))
    assert "\x1b[1m70.0 ± 4.0" in out.getvalue()


def test_a_narrow_terminal_does_without_what_is_spare() -> None:
    columns = [Column("", "mean"), Column("", "interval", spare=True), Column("", "paper")]
    table = Table("t", "", "variant", tuple(columns), (Row("", "a variant", (0.7, 0.1, 0.6)),))

    def shown(width: int) -> list[list[str]]:
        parts = to_terminal(table, width)
        return [list(map(attrgetter("header"), part.columns)) for part in parts]

    assert shown(40) == [["variant", "mean", "interval", "paper"]]
    assert shown(30) == [["variant", "mean", "paper"]]
    assert shown(24) == [["variant", "mean", "paper"]], "the name on two lines"
    assert shown(20) == [["variant", "mean"], ["variant", "paper"]]
    assert "interval" in to_csv(table)


def test_latex_is_booktabs_and_escaped(table) -> None:
    text = to_latex(table)
    assert r"\caption{What\_is. It's 5 \% $\pm$ 1 -- ``so''.}" in text
    assert r"\multicolumn{1}{c}{old\_50\% \& more}" in text
    assert r"\cmidrule(lr){2-2}" in text
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.count(" & ") for line in body} == {2}
