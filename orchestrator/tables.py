"""The tables people ask for, built once and rendered as terminal text, Markdown, CSV and JSON with the very same numbers.

A `Table` holds fractions; `percent` is the only place where one becomes text, so no two renderings can disagree. A cell
reads `x` when its class was not learned yet, and `–` when the quantity does not exist (no old classes after step 0, no
ground truth of a class).
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import groupby
from typing import Any, NamedTuple

from rich import box
from rich.table import Table as RichTable

from orchestrator.record import DataSource
from orchestrator.results import ChainResult
from training.config import BACKGROUND, EvaluationConfig
from training.metrics import DEFINITIONS, Convention, Retention, Scores, flow

Value = float | str | None  # a fraction; text as it is, such as "x"

MEANS = {  # the rows below the classes, by the field of Scores that they show
    "miou_old": "old",
    "miou_old_with_background": "old with background",
    "miou_new": "new",
    "miou_base": "base",
    "miou_base_with_background": "base with background",
    "miou_added": "added",
    "miou_all_without_background": "all",
    "miou_all": "all with background",
    "pixel_accuracy": "pixel accuracy",
}
# What papers print as old and new after several steps: the classes of step 0, and those of all later steps.
PRINTED = {"miou_old": "miou_base", "miou_old_with_background": "miou_base_with_background", "miou_new": "miou_added"}


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


def class_table(chains: Sequence[ChainResult], convention: Convention) -> Table:
    """Per class and step, chains side by side: IoU of every class, then the means over old, new and all classes."""
    scored = [(chain, step, step.scores(convention)) for chain in chains for step in chain.steps]
    columns = tuple(Column(chain.name, f"step {step.record.index}", step.record.key) for chain, step, _ in scored)
    ids = dict.fromkeys([BACKGROUND, *(c for chain in chains for group in chain.groups for c in group)])
    rows = []
    for class_id in ids:
        learned = {g for chain in chains for g, group in enumerate(chain.groups) if class_id in group}
        section = f"learned in step {learned.pop()}" if len(learned) == 1 else "" if not learned else "classes"
        values: tuple[Value, ...] = tuple(scores.iou.get(class_id, "x") for _, _, scores in scored)
        name = next(chain.class_name(class_id) for chain in chains if class_id in chain.steps[-1].evaluation.class_names)
        rows.append(Row(section, name, values))
    headline = headline_fields(convention)
    if any(len(chain.groups) > 2 for chain in chains):
        headline = tuple(PRINTED.get(field, field) for field in headline)
    for field in _means(chains):
        values = tuple(getattr(scores, field) for _, _, scores in scored)
        rows.append(Row("means", MEANS[field], values, field in headline, DEFINITIONS[field]))
    caption = (
        f"{_scored_on(chains)} Per cent. Rows of classes: IoU ({DEFINITIONS['iou']}). “x”: not learned yet; “–”: does not "
        f"exist. {convention.words} Bold: the means that this convention prints."
    )
    return Table("IoU of every class after every step", caption, "class", columns, tuple(rows))


def summary_table(chains: Sequence[ChainResult], convention: Convention) -> Table:
    """One row per chain: its means after the last step, and what it forgot on the way there."""
    means = {field: MEANS[field] for field in _means(chains) if field != "pixel_accuracy"}
    whole = {
        "forgetting_first_minus_last": "forgetting, first − last",
        "forgetting_best_minus_last": "forgetting, best − last",
        "backward_transfer": "backward transfer",
        "average_over_steps_without_background": "average over steps",
        "average_over_steps": "average over steps with background",
    }
    columns = tuple(Column("", name, meaning=DEFINITIONS[field]) for field, name in (means | whole).items())
    rows = []
    for chain in chains:
        last, over = chain.scores(convention)[-1], chain.continual(convention)
        values = (*(getattr(last, field) for field in means), *(getattr(over, field) for field in whole))
        rows.append(Row("", chain.name, values))
    caption = (
        f"{_scored_on(chains)} Per cent, after the last step; forgetting and transfer in percentage points. {convention.words}"
    )
    return Table("Chains at a glance", caption, "chain", columns, tuple(rows))


def forgetting_table(chains: Sequence[ChainResult], convention: Convention) -> Table | None:
    """Per class and per group, what was lost since it was learned; None when no chain has a second step."""
    if all(len(chain.steps) == 1 for chain in chains):
        return None
    over = [chain.continual(convention) for chain in chains]
    fields = {"forgetting_first_minus_last": "first − last", "forgetting_best_minus_last": "best − last"}
    columns = tuple(Column(chain.name, name) for chain in chains for name in fields.values())

    def values(each: Iterable[Retention | None]) -> tuple[Value, ...]:
        return tuple(getattr(kept, field) if kept else None for kept in each for field in fields)

    ids = dict.fromkeys([BACKGROUND, *(c for chain in chains for group in chain.groups[:-1] for c in group)])
    rows = [Row("classes", chains[0].class_name(c), values(chain.classes.get(c) for chain in over)) for c in ids]
    for g in range(max(len(chain.groups) for chain in chains) - 1):
        kept = [chain.groups[g] if g < len(chain.groups) else None for chain in over]
        rows.append(Row("groups", f"group of step {g}", values(kept), meaning="of the mean IoU of the group's classes"))
    means = tuple(getattr(chain, field) for chain in over for field in fields)
    rows.append(Row("means", "mean over classes", means, True, "over the classes of earlier steps, background left out"))
    caption = (
        "Percentage points of IoU. First − last: right after the class was learned, minus after the last step. Best − last: "
        "its best after any earlier step, minus after the last; negative when the last step is its best. "
        f"{convention.words}"
    )
    return Table("Forgetting", caption, "class", columns, tuple(rows))


def flow_table(chains: Sequence[ChainResult], convention: Convention) -> Table | None:
    """What the pixels of old classes were predicted as after the last step; None when nothing is old."""
    columns = tuple(Column("", name) for name in ("right", "as background", "as new", "as other old"))
    rows = []
    for chain in chains:
        matrix, old = chain.steps[-1].matrix(convention), [c for group in chain.groups[:-1] for c in group]
        for classes, name in [*(([c], chain.class_name(c)) for c in old), (old, "all old classes")] if old else []:
            shares = flow(matrix, chain.groups, classes)
            values = tuple(shares.model_dump().values()) if shares else (None,) * 4
            rows.append(Row(chain.name, name, values, strong=len(classes) > 1))
    if not rows:
        return None
    caption = (
        "Share, in per cent, of a class's ground-truth pixels, after the last step. Its right share is its recall, not its "
        "IoU: pixels of other classes that were predicted as it do not show here. "
        f"{convention.words}"
    )
    return Table("What became of old classes' pixels", caption, "class", columns, tuple(rows))


def _means(chains: Sequence[ChainResult]) -> list[str]:
    """Fields of MEANS to show: base and added classes only where chains have several steps after step 0."""
    several = any(len(chain.groups) > 2 for chain in chains)
    return [field for field in MEANS if several or field not in PRINTED.values()]


def headline_fields(convention: Convention) -> tuple[str, str, str]:
    """The fields of Scores that the convention prints as old, new and all."""
    old = "miou_old_with_background" if convention.background_in_old else "miou_old"
    both = "miou_all" if convention.background_in_all else "miou_all_without_background"
    return old, "miou_new", both


def headline(scores: Scores, convention: Convention) -> tuple[float | None, float | None, float | None]:
    """Old, new and all as the convention prints them."""
    old, new, both = (getattr(scores, field) for field in headline_fields(convention))
    return old, new, both


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


def scored_on(data: DataSource, images: int, size: EvaluationConfig) -> str:
    """What was scored, in words."""
    side = f"shorter side {size.short_side}" if size.short_side else "original resolution"
    crop = f"centre crop {size.crop}" if size.crop else "no crop"
    return f"{data.name}/{data.split}, {images} images, {side}, {crop}"


def _scored_on(chains: Sequence[ChainResult]) -> str:
    evaluation = chains[0].steps[-1].evaluation
    void = " or ".join(sorted({step.record.step.task.void for chain in chains for step in chain.steps}))
    return f"{scored_on(evaluation.data, evaluation.images, evaluation.config)}; void pixels in training: {void}."
