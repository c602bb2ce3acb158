"""Write a table as terminal output, Markdown, LaTeX, CSV and JSON with the very same numbers."""

import csv
from collections.abc import Iterable, Sequence
from io import StringIO
from itertools import groupby
from typing import Any

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from orchestrator.report.table import Column, Measured, Row, Table, Value, percent

LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "−": "$-$",
        "–": "--",
        "“": "``",
        "”": "''",
        "’": "'",
        "×": r"$\times$",
    }
)
NAME_PADDING = 3  # characters around the row names on a terminal
PADDING = 2  # characters around the values of a column on a terminal


def to_terminal(table: Table, width: int) -> list[RichTable]:
    """Return tables for rich that fit a terminal.

    A table that is too wide first loses its spare columns. Then its row names wrap. At last it is
    broken into several tables, between groups of columns where possible.

    Args:
        table: The table to print.
        width: Characters in a line of the terminal.
    """
    widths = [_column_width(table, index) for index in range(len(table.columns))]
    shown, names_width = _fit(table, widths, width)
    pieces = _break(table, shown, widths, width - names_width)
    return [
        _to_rich(table, piece, widths, names_width, table.title if piece is pieces[0] else None)
        for piece in pieces
    ]


def _column_width(table: Table, index: int) -> int:
    """Return how many characters a column takes when its heading breaks between words."""
    column = table.columns[index]
    cells = (percent(row.values[index]) for row in table.rows)
    words = ("100.0", *column.group.split(), *column.name.split(), *cells)
    return max(map(len, words)) + PADDING


def _fit(table: Table, widths: Sequence[int], width: int) -> tuple[list[int], int]:
    """Return the indexes of the columns to show and the width of the row names."""
    names = [table.corner, *(row.name for row in table.rows)]
    words = [word for name in names for word in name.split()]
    full = max(map(len, names)) + NAME_PADDING
    wrapped = max(map(len, words)) + NAME_PADDING
    shown = list(range(len(table.columns)))
    if sum(widths) > width - full:
        shown = [index for index in shown if not table.columns[index].spare]
    taken = sum(widths[index] for index in shown)
    wraps = width - full < taken <= width - wrapped
    return shown, wrapped if wraps else full


def _break(table: Table, shown: Sequence[int], widths: Sequence[int], room: int) -> list[list[int]]:
    """Distribute columns over as many tables as needed. Groups stay together where they fit."""
    pieces: list[list[int]] = [[]]
    left = room
    for _, members in groupby(shown, lambda index: table.columns[index].group):
        group = list(members)
        if pieces[-1] and sum(widths[index] for index in group) > left:
            pieces.append([])
            left = room
        for index in group:
            if pieces[-1] and widths[index] > left:
                pieces.append([])
                left = room
            pieces[-1].append(index)
            left -= widths[index]
    return pieces


def _to_rich(
    table: Table, shown: list[int], widths: Sequence[int], names_width: int, title: str | None
) -> RichTable:
    """Return some columns of the table for rich."""
    piece = RichTable(
        title=title,
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title_style="bold",
        title_justify="left",
    )
    names_width -= NAME_PADDING
    piece.add_column(table.corner, vertical="bottom", min_width=names_width, max_width=names_width)
    for index in shown:
        column = table.columns[index]
        heading = f"{column.group}\n{column.name}" if column.group else column.name
        piece.add_column(
            heading, justify="right", vertical="bottom", max_width=widths[index] - PADDING
        )
    for row, following in zip(table.rows, (*table.rows[1:], None), strict=True):
        ends = following is not None and following.section != row.section
        style = "bold" if row.strong else None
        piece.add_row(row.name, *_rich_cells(row, shown), style=style, end_section=ends)
    return piece


def _rich_cells(row: Row, shown: Sequence[int]) -> list[Text]:
    return [
        Text(percent(row.values[index]), style="bold" if row.bold(index) else "") for index in shown
    ]


def to_markdown(table: Table) -> str:
    """Return the table in GitHub's Markdown below its title and above its caption."""
    lines = [f"### {table.title}", "", *markdown_lines(table), "", table.caption, ""]
    lines += [f"- {name}: {meaning}" for name, meaning in table.meanings.items()]
    return "\n".join(lines) + "\n"


def markdown_lines(table: Table) -> list[str]:
    """Return the lines of the table alone in GitHub's Markdown."""
    with_sections = len({row.section for row in table.rows}) > 1

    def line(section: str, name: str, cells: Iterable[str]) -> str:
        names = [section, name] if with_sections else [name]
        escaped = (text.replace("|", "\\|") for text in (*names, *cells))
        return f"| {' | '.join(escaped)} |"

    return [
        line("", table.corner, map(_column_name, table.columns)),
        "|" + " --- |" * (1 + with_sections) + " ---: |" * len(table.columns),
        *(line(row.section, row.name, _marked_cells(row, "**{}**")) for row in table.rows),
    ]


def _marked_cells(row: Row, bold: str) -> list[str]:
    """Return the cells of a row as text. `bold` formats those that are bold."""
    cells = map(percent, row.values)
    return [bold.format(cell) if row.bold(index) else cell for index, cell in enumerate(cells)]


def to_latex(table: Table) -> str:
    """Return the table for a paper. It needs `\\usepackage{booktabs}`.

    Wide tables want a `\\resizebox` or fewer columns.
    """
    names = (table.corner, *(column.name for column in table.columns))
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escape(table.title)}. {_escape(table.caption)}}}",
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        *_latex_groups(table),
        _latex_line(map(_escape, names)),
    ]
    for section, rows in table.sections:
        lines.append(r"\midrule")
        if section and len(table.sections) > 1:
            span = 1 + len(table.columns)
            lines.append(rf"\multicolumn{{{span}}}{{l}}{{\textit{{{_escape(section)}}}}} \\")
        lines += map(_latex_row, rows)
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _latex_groups(table: Table) -> list[str]:
    """Return the lines above the column names, if columns have groups."""
    if not any(column.group for column in table.columns):
        return []
    headings = [""]
    rules: list[str] = []
    first = 2
    for name, span in table.groups:
        headings.append(rf"\multicolumn{{{span}}}{{c}}{{{_escape(name)}}}")
        if name:
            rules.append(rf"\cmidrule(lr){{{first}-{first + span - 1}}}")
        first += span
    return [_latex_line(headings), "".join(rules)]


def _latex_row(row: Row) -> str:
    cells = []
    for index, value in enumerate(row.values):
        cell = _escape(percent(value))
        cells.append(rf"\textbf{{{cell}}}" if row.bold(index) else cell)
    return _latex_line([_escape(row.name), *cells])


def _latex_line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _escape(text: str) -> str:
    return text.translate(LATEX)


def to_csv(table: Table) -> str:
    """Return section, row name and numbers in per cent.

    The deviation of a column measured with several seeds has a column of its own after it.
    """
    deviates = [_has_deviation(table, index) for index in range(len(table.columns))]
    names = []
    for column, has_deviation in zip(table.columns, deviates, strict=True):
        name = _column_name(column)
        names += [name, f"{name} std"] if has_deviation else [name]
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["section", table.corner, *names])
    for row in table.rows:
        cells: list[str] = []
        for value, has_deviation in zip(row.values, deviates, strict=True):
            cells += _csv_cells(value, has_deviation)
        writer.writerow([row.section, row.name, *cells])
    return out.getvalue()


def _has_deviation(table: Table, index: int) -> bool:
    """Return whether a cell of the column was measured with several seeds."""
    return any(isinstance(row.values[index], Measured) for row in table.rows)


def _csv_cells(value: Value, has_deviation: bool) -> list[str]:
    mean, deviation = value if isinstance(value, Measured) else (value, None)
    return [percent(mean), percent(deviation)] if has_deviation else [percent(mean)]


def to_json(table: Table) -> dict[str, Any]:
    """Return the table as JSON values.

    Numbers are in per cent as printed. Several seeds give [mean, deviation]. A class that was not
    learned yet is "x", and a quantity that does not exist is null.
    """
    return {
        "title": table.title,
        "caption": table.caption,
        "columns": [_json_column(column) for column in table.columns],
        "rows": [_json_row(row) for row in table.rows],
    }


def _json_column(column: Column) -> dict[str, str]:
    fields = ("group", "name", "key", "meaning")
    return {field: getattr(column, field) for field in fields}


def _json_row(row: Row) -> dict[str, Any]:
    return {
        "section": row.section,
        "name": row.name,
        "values": [_json_cell(value) for value in row.values],
        "best": sorted(row.best),
        "meaning": row.meaning,
    }


def _json_cell(value: Value) -> float | list[float] | str | None:
    if isinstance(value, Measured):
        return [float(percent(part)) for part in value]
    return float(percent(value)) if isinstance(value, float) else value


def _column_name(column: Column) -> str:
    return f"{column.group} {column.name}" if column.group else column.name
