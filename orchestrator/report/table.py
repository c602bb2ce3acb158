"""A table of fractions, and every way to write it down: terminal, Markdown, LaTeX, CSV and JSON with the very same numbers.

A `Table` holds fractions; `percent` is the only place where one becomes text, so no two renderings can disagree. A cell
reads `x` when its class was not learned yet, and `–` when the quantity does not exist (no old classes after step 0, no
ground truth of a class). The best cells of a column are bold wherever there is bold.
"""

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import NamedTuple


class Measured(NamedTuple):
    """A quantity measured with several seeds."""

    mean: float
    deviation: float  # standard deviation, with n - 1


Value = float | Measured | str | None  # fractions; text as it is, such as "x"


class Column(NamedTuple):
    """One column: what stands above it (a chain), its own name, the key of the step it shows, if it shows one, its meaning."""

    group: str
    name: str
    key: str = ""
    meaning: str = ""
    spare: bool = False  # a terminal that is too narrow for all does without it


class Row(NamedTuple):
    """One row under its section. `strong`: a number that the convention's paper prints."""

    section: str
    name: str
    values: tuple[Value, ...]
    strong: bool = False
    meaning: str = ""
    best: frozenset[int] = frozenset()  # which of the values are the best of their column

    def bold(self, index: int) -> bool:
        """Whether to print that value bold."""
        return self.values[index] is not None and (self.strong or index in self.best)


@dataclass(frozen=True)
class Table:
    title: str
    caption: str  # what the numbers mean, the convention in words
    corner: str  # heading of the row names
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """What stands above the columns, and above how many."""
        return [
            (name, len(list(members)))
            for name, members in groupby(column.group for column in self.columns)
        ]

    @property
    def sections(self) -> list[tuple[str, list[Row]]]:
        """Rows that stand together."""
        return [
            (name, list(members)) for name, members in groupby(self.rows, lambda row: row.section)
        ]

    @property
    def meanings(self) -> dict[str, str]:
        """What rows and columns mean that need saying, by name."""
        return {each.name: each.meaning for each in (*self.columns, *self.rows) if each.meaning}


def fraction(value: Value) -> float | None:
    """The number in a cell, if there is one: of several seeds, their mean."""
    if isinstance(value, Measured):
        return value.mean
    return None if isinstance(value, str) else value


def with_best(
    table: Table, columns: Collection[int], alike: Sequence[Hashable], lowest: Collection[int] = ()
) -> Table:
    """The table with the best of these columns marked, among rows of which `alike` says the same; equals as printed share it.

    The highest is best, in the columns of `lowest` the lowest. A row that nothing compares with has no best.
    """
    rows = []
    for row, kind in zip(table.rows, alike, strict=True):
        rivals = [other for other, its in zip(table.rows, alike, strict=True) if its == kind]
        best = set()
        for index in columns:
            known = [
                value for other in rivals if (value := fraction(other.values[index])) is not None
            ]
            mine = fraction(row.values[index])
            if mine is not None and len(known) > 1:
                wanted = min(known) if index in lowest else max(known)
                best |= {index} if percent(mine) == percent(wanted) else set()
        rows.append(row._replace(best=frozenset(best)))
    return replace(table, rows=tuple(rows))


def percent(value: Value) -> str:
    """A cell as text: per cent with one decimal, `71.2 ± 0.4`, `x` not learned yet, `–` does not exist."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    if isinstance(value, Measured):
        return f"{percent(value.mean)} ± {percent(value.deviation)}"
    text = f"{100 * value:.1f}"
    return "0.0" if text == "-0.0" else text
