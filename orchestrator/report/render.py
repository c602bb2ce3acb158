"""Write a table down: terminal, Markdown, LaTeX, CSV and JSON with the very same numbers."""

import csv
from collections.abc import Iterable
from io import StringIO
from itertools import groupby
from typing import Any

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from orchestrator.report.table import Column, Measured, Table, Value, percent

LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "−": "$-$",
        "–": "--",
    }
    | {"“": "``", "”": "''", "’": "'", "×": r"$\times$"}
)


def to_terminal(table: Table, width: int) -> list[RichTable]:
    """Tables for rich, as many as it takes to fit `width` characters, broken between chains where that is possible.

    Before a table is broken it goes without its spare columns, and then with names on several lines.
    """
    names = [table.corner, *(row.name for row in table.rows)]
    label, shown = max(map(len, names)) + 3, list(range(len(table.columns)))
    wrapped = max(len(word) for name in names for word in name.split()) + 3

    def taken() -> int:
        return sum(_width(table, index) for index in shown)

    if taken() > width - label:
        shown = [index for index in shown if not table.columns[index].spare]
    if width - label < taken() <= width - wrapped:
        label = wrapped
    parts: list[list[int]] = [[]]
    room = width - label
    for _, members in groupby(shown, lambda index: table.columns[index].group):
        group = list(members)
        widths = [_width(table, index) for index in group]
        if parts[-1] and sum(widths) > room:
            parts.append([])
            room = width - label
        for index, needed in zip(group, widths, strict=True):
            if parts[-1] and needed > room:
                parts.append([])
                room = width - label
            parts[-1].append(index)
            room -= needed
    return [
        _rich_part(table, part, table.title if part is parts[0] else None, label - 3)
        for part in parts
    ]


def _width(table: Table, index: int) -> int:
    """Characters a column takes on a terminal, when its heading is broken between words."""
    column = table.columns[index]
    cells = (percent(row.values[index]) for row in table.rows)
    return (
        max(len(word) for word in ("100.0", *column.group.split(), *column.name.split(), *cells))
        + 2
    )


def _rich_part(table: Table, shown: list[int], title: str | None, label: int) -> RichTable:
    part = RichTable(
        title=title,
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title_style="bold",
        title_justify="left",
    )
    part.add_column(table.corner, vertical="bottom", min_width=label, max_width=label)
    for index in shown:
        column = table.columns[index]
        heading = f"{column.group}\n{column.name}" if column.group else column.name
        part.add_column(
            heading, justify="right", vertical="bottom", max_width=_width(table, index) - 2
        )
    for row, following in zip(table.rows, (*table.rows[1:], None), strict=True):
        cells = [
            Text(percent(row.values[index]), style="bold" if row.bold(index) else "")
            for index in shown
        ]
        ends = following is not None and following.section != row.section
        part.add_row(row.name, *cells, style="bold" if row.strong else None, end_section=ends)
    return part


def to_markdown(table: Table) -> str:
    """A GitHub table under its title, the caption below it."""
    sections = len({row.section for row in table.rows}) > 1

    def line(section: str, name: str, cells: Iterable[str]) -> str:
        return (
            "| "
            + " | ".join(
                text.replace("|", "\\|")
                for text in ([section, name] if sections else [name]) + [*cells]
            )
            + " |"
        )

    lines = [
        f"### {table.title}",
        "",
        line("", table.corner, (_column_name(column) for column in table.columns)),
    ]
    lines.append("|" + " --- |" * (1 + sections) + " ---: |" * len(table.columns))
    for row in table.rows:
        cells = (
            f"**{percent(value)}**" if row.bold(index) else percent(value)
            for index, value in enumerate(row.values)
        )
        lines.append(line(row.section, row.name, cells))
    lines += ["", table.caption, ""]
    lines += [f"- {name}: {meaning}" for name, meaning in table.meanings.items()]
    return "\n".join(lines) + "\n"


def to_latex(table: Table) -> str:
    """A table for a paper, by booktabs: `\\usepackage{booktabs}`. Wide ones want a `\\resizebox` or fewer columns."""
    grouped = any(column.group for column in table.columns)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_tex(table.title)}. {_tex(table.caption)}}}",
    ]
    lines += [rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}", r"\toprule"]
    if grouped:
        heads, rules, first = [""], [], 2
        for name, span in table.groups:
            heads.append(rf"\multicolumn{{{span}}}{{c}}{{{_tex(name)}}}")
            rules += [rf"\cmidrule(lr){{{first}-{first + span - 1}}}"] if name else []
            first += span
        lines += [" & ".join(heads) + r" \\", "".join(rules)]
    lines += [
        " & ".join(map(_tex, (table.corner, *(column.name for column in table.columns)))) + r" \\"
    ]
    for section, rows in table.sections:
        lines.append(r"\midrule")
        if section and len(table.sections) > 1:
            lines.append(
                rf"\multicolumn{{{1 + len(table.columns)}}}{{l}}{{\textit{{{_tex(section)}}}}} \\"
            )
        for row in rows:
            cells = (_tex(percent(value)) for value in row.values)
            shown = (
                rf"\textbf{{{cell}}}" if row.bold(index) else cell
                for index, cell in enumerate(cells)
            )
            lines.append(" & ".join([_tex(row.name), *shown]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _tex(text: str) -> str:
    return text.translate(LATEX)


def to_csv(table: Table) -> str:
    """Section, row name, then numbers in per cent; a column measured with several seeds has its deviation in the next."""
    spread = [
        any(isinstance(row.values[index], Measured) for row in table.rows)
        for index in range(len(table.columns))
    ]
    names = []
    for column, deviates in zip(table.columns, spread, strict=True):
        names += [_column_name(column), f"{_column_name(column)} std"][: 1 + deviates]
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["section", table.corner, *names])
    for row in table.rows:
        cells: list[str] = []
        for value, deviates in zip(row.values, spread, strict=True):
            pair = value if isinstance(value, Measured) else (value, None)
            cells += [percent(part) for part in pair][: 1 + deviates]
        writer.writerow([row.section, row.name, *cells])
    return out.getvalue()


def to_json(table: Table) -> dict[str, Any]:
    """The same as JSON values: numbers in per cent as printed, [mean, deviation], "x", or null for what does not exist."""

    def cell(value: Value) -> float | list[float] | str | None:
        if isinstance(value, Measured):
            return [float(percent(part)) for part in value]
        return float(percent(value)) if isinstance(value, float) else value

    return {
        "title": table.title,
        "caption": table.caption,
        "columns": [
            {name: getattr(c, name) for name in ("group", "name", "key", "meaning")}
            for c in table.columns
        ],
        "rows": [
            {
                "section": row.section,
                "name": row.name,
                "values": [cell(value) for value in row.values],
                "best": sorted(row.best),
                "meaning": row.meaning,
            }
            for row in table.rows
        ],
    }


def _column_name(column: Column) -> str:
    return f"{column.group} {column.name}" if column.group else column.name
