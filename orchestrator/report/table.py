"""Define tables of fractions, which `orchestrator.report.render` writes in every format.

A `Table` holds fractions. All formats print them with `percent`, so no two of them can disagree.
A cell reads `x` when its class was not learned yet. It reads `–` when the quantity does not exist,
for example old classes after step 0 or a class without ground truth.
"""

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import NamedTuple

from orchestrator.report.statistics import Summary, summarize


class Measured(NamedTuple):
    """A quantity measured with several seeds."""

    mean: float
    deviation: float  # standard deviation, with n - 1


Value = float | Measured | str | None  # fractions; text such as "x" is printed as it is


class Column(NamedTuple):
    """A column of a table. `key` is the key of the step that the column shows, if it shows one."""

    group: str  # heading above the name, such as the chain
    name: str
    key: str = ""
    meaning: str = ""
    spare: bool = False  # left out by a terminal that is too narrow for all columns


class Row(NamedTuple):
    """A row of a table under the heading of its section."""

    section: str
    name: str
    values: tuple[Value, ...]
    strong: bool = False  # a number that the convention's paper prints
    meaning: str = ""
    best: frozenset[int] = frozenset()  # indexes of values that are the best of their column

    def bold(self, index: int) -> bool:
        """Return whether to print the value at `index` bold."""
        return self.values[index] is not None and (self.strong or index in self.best)


@dataclass(frozen=True)
class Table:
    """A titled table. Its caption says what the numbers mean, the convention included."""

    title: str
    caption: str
    corner: str  # heading of the row names
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Return the headings above the columns with the number of columns below each."""
        groups = groupby(self.columns, lambda column: column.group)
        return [(name, len(list(members))) for name, members in groups]

    @property
    def sections(self) -> list[tuple[str, list[Row]]]:
        """Return the rows by section."""
        sections = groupby(self.rows, lambda row: row.section)
        return [(name, list(members)) for name, members in sections]

    @property
    def meanings(self) -> dict[str, str]:
        """Return the meanings of rows and columns by name, where there are any."""
        return {each.name: each.meaning for each in (*self.columns, *self.rows) if each.meaning}


def average(values: Iterable[float | None]) -> Value:
    """Return the mean of the values that exist, with its deviation when there are several."""
    return to_value(summarize(values))


def to_value(summary: Summary | None) -> Value:
    """Return summary statistics as a cell of a table."""
    if summary is None or summary.deviation is None:
        return summary and summary.mean
    return Measured(summary.mean, summary.deviation)


def fraction(value: Value) -> float | None:
    """Return the number in a cell, or None for text. The number of several seeds is their mean."""
    if isinstance(value, Measured):
        return value.mean
    return None if isinstance(value, str) else value


def with_best(
    table: Table, columns: Collection[int], alike: Sequence[Hashable], lowest: Collection[int] = ()
) -> Table:
    """Mark the best values of some columns.

    Values that print the same share a mark. A row that compares with no other row has none.

    Args:
        table: The table without marks.
        columns: Indexes of the columns to mark.
        alike: One entry per row. Rows of equal entries compare with each other.
        lowest: Indexes of the columns whose lowest value is the best.
    """
    rivals: defaultdict[Hashable, list[Row]] = defaultdict(list)
    for row, kind in zip(table.rows, alike, strict=True):
        rivals[kind].append(row)
    best = {
        (kind, index): _best(rows, index, index in lowest)
        for kind, rows in rivals.items()
        for index in columns
    }
    marked = []
    for row, kind in zip(table.rows, alike, strict=True):
        mine = {index: fraction(row.values[index]) for index in columns}
        own = [
            index
            for index, value in mine.items()
            if value is not None and percent(value) == best[kind, index]
        ]
        marked.append(row._replace(best=frozenset(own)))
    return replace(table, rows=tuple(marked))


def _best(rows: Sequence[Row], index: int, lowest: bool) -> str | None:
    """Return the best value at `index` as it prints; None if fewer than two rows have one."""
    known = [value for row in rows if (value := fraction(row.values[index])) is not None]
    if len(known) < 2:
        return None
    return percent(min(known) if lowest else max(known))


def percent(value: Value) -> str:
    """Return a cell as text, in per cent with one decimal.

    Several seeds print as `71.2 ± 0.4`, and a quantity that does not exist as `–`.
    """
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    if isinstance(value, Measured):
        return f"{percent(value.mean)} ± {percent(value.deviation)}"
    text = f"{100 * value:.1f}"
    return "0.0" if text == "-0.0" else text
