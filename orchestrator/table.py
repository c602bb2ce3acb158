"""A table of fractions, and every way to write it down: terminal text, Markdown, CSV and JSON with the very same numbers.

A `Table` holds fractions; `percent` is the only place where one becomes text, so no two renderings can disagree. A cell
reads `x` when its class was not learned yet, and `–` when the quantity does not exist (no old classes after step 0, no
ground truth of a class).
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from io import StringIO
from itertools import groupby
from typing import Any, NamedTuple

from rich import box
from rich.table import Table as RichTable

Value = float | str | None  # a fraction; text as it is, such as "x"


class Column(NamedTuple):
    """One column: what stands above it (a chain), its own name, the key of the step it shows, if it shows one, its meaning."""

    group: str
    name: str
    key: str = ""
    meaning: str = ""


class Row(NamedTuple):
    """One row under its section. `strong`: a number that the convention's paper prints."""

    section: str
    name: str
    values: tuple[Value, ...]
    strong: bool = False
    meaning: str = ""


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
        return [(name, len(list(members))) for name, members in groupby(column.group for column in self.columns)]

    @property
    def sections(self) -> list[tuple[str, list[Row]]]:
        """Rows that stand together."""
        return [(name, list(members)) for name, members in groupby(self.rows, lambda row: row.section)]

    @property
    def meanings(self) -> dict[str, str]:
        """What rows and columns mean that need saying, by name."""
        return {each.name: each.meaning for each in (*self.columns, *self.rows) if each.meaning}


def percent(value: Value) -> str:
    """A cell as text: per cent with one decimal, `x` not learned yet, `–` does not exist."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    text = f"{100 * value:.1f}"
    return "0.0" if text == "-0.0" else text


def to_terminal(table: Table, width: int) -> list[RichTable]:
    """Tables for rich, as many as it takes to fit `width` characters, broken between chains where that is possible."""
    label = max(len(text) for text in (table.corner, *(row.name for row in table.rows))) + 3
    parts: list[list[int]] = [[]]
    room = width - label
    for _, members in groupby(range(len(table.columns)), lambda index: table.columns[index].group):
        group = list(members)
        widths = [_width(table.columns[index]) for index in group]
        if parts[-1] and sum(widths) > room:
            parts.append([])
            room = width - label
        for index, needed in zip(group, widths, strict=True):
            if parts[-1] and needed > room:
                parts.append([])
                room = width - label
            parts[-1].append(index)
            room -= needed
    return [_rich_part(table, part, table.title if part is parts[0] else None) for part in parts]


def _width(column: Column) -> int:
    """Characters a column takes on a terminal, when its heading is broken between words."""
    return max(len(word) for word in (*column.group.split(), *column.name.split(), "100.0")) + 2


def _rich_part(table: Table, shown: list[int], title: str | None) -> RichTable:
    part = RichTable(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title_style="bold", title_justify="left")
    part.add_column(table.corner, no_wrap=True, vertical="bottom")
    for index in shown:
        column = table.columns[index]
        heading = f"{column.group}\n{column.name}" if column.group else column.name
        part.add_column(heading, justify="right", vertical="bottom", max_width=_width(column) - 2)
    for row, following in zip(table.rows, (*table.rows[1:], None), strict=True):
        cells = [percent(row.values[index]) for index in shown]
        ends = following is not None and following.section != row.section
        part.add_row(row.name, *cells, style="bold" if row.strong else None, end_section=ends)
    return part


def to_markdown(table: Table) -> str:
    """A GitHub table under its title, the caption below it."""
    sections = len({row.section for row in table.rows}) > 1

    def line(section: str, name: str, cells: Iterable[str]) -> str:
        return (
            "| " + " | ".join(text.replace("|", "\\|") for text in ([section, name] if sections else [name]) + [*cells]) + " |"
        )

    lines = [f"### {table.title}", "", line("", table.corner, (_column_name(column) for column in table.columns))]
    lines.append("|" + " --- |" * (1 + sections) + " ---: |" * len(table.columns))
    for row in table.rows:
        cells = (f"**{percent(value)}**" if row.strong and value is not None else percent(value) for value in row.values)
        lines.append(line(row.section, row.name, cells))
    lines += ["", table.caption, ""]
    lines += [f"- {name}: {meaning}" for name, meaning in table.meanings.items()]
    return "\n".join(lines) + "\n"


def to_csv(table: Table) -> str:
    """Section, row name, then one column of numbers each, in per cent."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["section", table.corner, *(_column_name(column) for column in table.columns)])
    writer.writerows([row.section, row.name, *(percent(value) for value in row.values)] for row in table.rows)
    return out.getvalue()


def to_json(table: Table) -> dict[str, Any]:
    """The same as JSON values: numbers in per cent as printed, "x", or null for what does not exist."""

    def cell(value: Value) -> float | str | None:
        return float(percent(value)) if isinstance(value, float) else value

    return {
        "title": table.title,
        "caption": table.caption,
        "columns": [column._asdict() for column in table.columns],
        "rows": [
            {"section": row.section, "name": row.name, "values": [cell(value) for value in row.values], "meaning": row.meaning}
            for row in table.rows
        ],
    }


def _column_name(column: Column) -> str:
    return f"{column.group} {column.name}" if column.group else column.name
