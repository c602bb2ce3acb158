"""One HTML file that answers a campaign's question, and its numbers as Markdown, LaTeX, CSV and Parquet beside it.

The page shows the campaign as far as it is published: its table, a figure for each thing that was varied, and where its
variants forgot. Like a chain's page it needs nothing but itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.planning.variants import axis_text, axis_words
from orchestrator.report import comparison_figures, figures
from orchestrator.report.campaign_results import CampaignResult
from orchestrator.report.campaign_scores import MEANS
from orchestrator.report.campaign_tables import (
    class_table,
    flow_table,
    forgetting_table,
    paired,
    scores_table,
)
from orchestrator.report.chain_tables import headline_fields
from orchestrator.report.comparison_figures import Series
from orchestrator.report.html import Drawing, draw, render
from orchestrator.report.render import to_csv, to_latex, to_markdown
from orchestrator.report.scores_parquet import write_scores
from orchestrator.report.settings import Setting, compare_settings
from orchestrator.report.table import Table, Value, fraction
from training.prediction_breakdown import PredictionBreakdown

SERIES = 8  # that a figure tells apart
BAND = "Bands and whiskers are one standard deviation over seeds to each side."


@dataclass(frozen=True)
class CampaignReport:
    """What the page shows. Built by `build_campaign_report`."""

    result: CampaignResult
    scores: Table
    classes: Table | None
    forgetting: Table | None
    flow: Table | None
    axes: Mapping[str, Drawing]  # by the field that varies
    steps: Drawing | None
    flows: Drawing | None
    settings: tuple[Setting, ...]

    @property
    def tables(self) -> dict[str, Table]:
        """By the name of their file."""
        named = {
            "scores": self.scores,
            "classes": self.classes,
            "forgetting": self.forgetting,
            "flow": self.flow,
        }
        return {name: table for name, table in named.items() if table}

    @property
    def drawings(self) -> dict[str, Drawing]:
        """By the name of their file."""
        named = {"steps": self.steps, "flow": self.flows, **self.axes}
        return {name: drawing for name, drawing in named.items() if drawing}


def build_campaign_report(result: CampaignResult) -> CampaignReport:
    """Everything to be shown of a campaign, as far as it is published."""
    published = bool(result.published)
    flow = flow_table(result)
    return CampaignReport(
        result=result,
        scores=scores_table(result),
        classes=class_table(result) if published else None,
        forgetting=forgetting_table(result),
        flow=flow,
        axes=_axes(result) if published else {},
        steps=_over_steps(result),
        flows=_flows(result, flow) if flow else None,
        settings=compare_settings(
            [
                result.chains[cell.cell.chains[0]].chain.model_dump(mode="json")
                for cell in result.cells
            ]
        ),
    )


def write_campaign_report(report: CampaignReport, folder: Path) -> Path:
    """Write report.html, tables.md, tables.tex, a CSV of each table and scores.parquet to `folder`; returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in to_files(report).items():
        (folder / name).write_text(text, encoding="utf-8")
    write_scores(
        [seed.chain for seed in report.result.published],
        report.result.convention,
        folder / "scores.parquet",
    )
    return folder / "report.html"


def to_files(report: CampaignReport) -> dict[str, str]:
    """The page and the tables as text, by the names of their files."""
    tables = report.tables
    return {
        "report.html": render(
            "campaign.html.j2", report=report, result=report.result, scores=paired(report.scores)
        ),
        "tables.md": "\n".join(to_markdown(paired(table)) for table in tables.values()),
        "tables.tex": "\n".join(to_latex(paired(table)) for table in tables.values()),
        **{f"{name}.csv": to_csv(table) for name, table in tables.items()},
    }


def _axes(result: CampaignResult) -> dict[str, Drawing]:
    """A figure for each field on which the cells differ, unless its lines would be too many to tell apart."""
    found = {}
    for axis in dict.fromkeys(axis for cell in result.cells for axis in cell.cell.axes):
        values = list(
            dict.fromkeys(cell.cell.axes[axis] for cell in result.cells if axis in cell.cell.axes)
        )
        numeric = len(values) > 1 and all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in values
        )
        places = sorted(values) if numeric else values
        shown = {part: _series(result, axis, places, part) for part in MEANS}
        if len(shown["all"]) > SERIES:
            continue
        name = axis.rpartition(".")[2]
        texts = [axis_text(place) for place in places]
        figure = (
            comparison_figures.along(name, places, shown)
            if numeric
            else comparison_figures.among(texts, shown)
        )
        theirs = any(
            any(number is not None for number in series.paper)
            for lines in shown.values()
            for series in lines.values()
        )
        paper = (
            " Dotted or hollow: what the paper reports, where it counts as we do." if theirs else ""
        )
        caption = f"mIoU after the last step by {axis}: of step 0's classes, of all later ones, and of all. {BAND}{paper}"
        found[axis] = draw(figure, f"mIoU by {axis}", caption)
    return found


def _series(
    result: CampaignResult, axis: str, places: Sequence[object], part: str
) -> dict[str, Series]:
    """Lines along an axis: cells that differ in nothing else, called by what tells the lines apart."""
    table = paired(result.scores)
    columns = {
        (column.group, column.name.partition(" ")[0]): index
        for index, column in enumerate(table.columns)
    }
    found: dict[str, dict[object, tuple[Value, float | None]]] = {}
    for cell, row in zip(result.cells, table.rows, strict=True):
        if axis in cell.cell.axes:
            others = (
                axis_words(name, value) for name, value in cell.cell.axes.items() if name != axis
            )
            compares = ("ours − paper", part) in columns and row.values[
                columns["ours − paper", part]
            ] is not None
            theirs = fraction(row.values[columns["paper", part]]) if compares else None
            found.setdefault(" ".join(others), {})[cell.cell.axes[axis]] = (
                row.values[columns[part, "mean"]],
                theirs,
            )
    nothing = None, None
    return {
        name: Series(
            [cells.get(place, nothing)[0] for place in places],
            [cells.get(place, nothing)[1] for place in places],
        )
        for name, cells in found.items()
    }


def _over_steps(result: CampaignResult) -> Drawing | None:
    """Base, new and all after each step; nothing where chains have one step, or are too many to tell apart."""
    cells = [cell for cell in result.cells if cell.seeds]
    if not any(len(cell.seeds[0].scores) > 1 for cell in cells) or len(cells) > 4 * SERIES:
        return None

    many = len(cells) > SERIES

    def values(number):
        found = {
            cell.name: [
                cell.average(lambda seed, s=step: number(seed.scores[s]))
                for step in range(len(cell.seeds[0].scores))
            ]
            for cell in cells
        }
        return (
            {name: list(map(fraction, means)) for name, means in found.items()} if many else found
        )

    shown = {
        "base: step 0's classes": values(lambda scores: scores.miou_base),
        "new: the step's own classes": values(lambda scores: scores.miou_new),
        "all": values(lambda scores: getattr(scores, headline_fields(result.convention)[2])),
    }
    caption = "mIoU after each step: of the classes of step 0, of those that the step brought, and of all so far."
    caption += (
        " Bands of so many would hide each other: the tables have the deviations."
        if many
        else f" {BAND}"
    )
    return draw(
        comparison_figures.over_steps(shown), "mIoU over incremental steps of each variant", caption
    )


def _flows(result: CampaignResult, table: Table) -> Drawing:
    parts = list(PredictionBreakdown.model_fields)
    shares = {
        row.name: PredictionBreakdown(
            **{part: fraction(value) or 0.0 for part, value in zip(parts, row.values, strict=True)}
        )
        for row in table.rows
        if row.values[0] is not None
    }
    caption = (
        "What the pixels of old classes were predicted as after the last step, mean over seeds. Grey is background shift, "
        "orange the pull of new classes: the two great causes of forgetting."
    )
    return draw(
        figures.breakdowns({"all old classes": shares}),
        "What became of old classes' pixels in each variant",
        caption,
    )
