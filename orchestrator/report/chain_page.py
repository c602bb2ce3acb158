"""Write the report of chains side by side: one HTML page, and its numbers in other formats.

The page needs nothing but itself. Figures are inline SVG, pictures are data URIs, and there is
neither script nor request. All numbers come from `orchestrator.report.chain_tables`, which every
other format uses too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.records.results import ChainResult, fitting
from orchestrator.report.chain_figures import (
    draw_breakdowns,
    draw_classes,
    draw_confusion,
    draw_curves,
    draw_steps,
)
from orchestrator.report.chain_tables import (
    breakdown_table,
    class_table,
    forgetting_table,
    summary_table,
)
from orchestrator.report.html import Drawing, render
from orchestrator.report.pictures import Picture, Thumbnail, build_strip, legend, strip_headings
from orchestrator.report.render import to_csv, to_latex, to_markdown
from orchestrator.report.scores_parquet import write_scores
from orchestrator.report.settings import Setting, compare_settings
from orchestrator.report.table import Table
from orchestrator.report.times import chain_times
from training.config import VOID
from training.metrics import Convention
from training.scenario import Scenario

DATASET = "dataset.html"


@dataclass(frozen=True)
class Report:
    """The content of the page. `build_report` builds it, and `write_report` writes it."""

    title: str
    chains: tuple[ChainResult, ...]
    convention: Convention
    summary: Table
    classes: Table
    forgetting: Table | None
    breakdown: Table | None
    times: Table
    drawings: Mapping[str, Drawing]
    confusion: tuple[Drawing, ...]  # of each chain
    curves: tuple[Drawing, ...]  # of each chain
    settings: tuple[Setting, ...]
    strips: tuple[tuple[Thumbnail, ...], ...]  # of each image
    strip_headings: tuple[tuple[str, tuple[str, ...]], ...]  # by chain
    legend: tuple[tuple[str, str], ...]  # class name and colour
    dataset_page: bytes | None  # what `jobs.ingest look` saw in the dataset
    reproductions: tuple[str, ...]  # what other attempts at the steps found, in sentences

    @property
    def tables(self) -> tuple[Table, ...]:
        """Return the tables that exist, in the order of the page."""
        tables = (self.summary, self.classes, self.breakdown, self.forgetting, self.times)
        return tuple(table for table in tables if table)


def build_report(
    chains: Sequence[ChainResult],
    convention: Convention,
    pictures: Sequence[Picture] = (),
    dataset_page: bytes | None = None,
    reproductions: Sequence[str] = (),
) -> Report:
    """Build the report of chains that were scored alike.

    Args:
        chains: The chains to compare.
        convention: What to count.
        pictures: Images with the predictions of all steps of the chains, in order. The page has
            no strips without them.
        dataset_page: The page of the dataset that they were scored on. It is linked.
        reproductions: What other attempts at the steps found, in sentences.
    """
    convention = fitting(convention, chains)
    documents = [chain.record.chain for chain in chains]
    drawings = {
        "steps": draw_steps(chains, convention),
        "classes": draw_classes(chains, convention),
    }
    if any(len(chain.steps) > 1 for chain in chains):
        drawings["breakdown"] = draw_breakdowns(chains, convention)
    names = chains[0].steps[-1].evaluation.class_names | {VOID: "void"}
    strips = [tuple(build_strip(picture, chains, names)) for picture in pictures]
    return Report(
        title=_title(documents),
        chains=tuple(chains),
        convention=convention,
        summary=summary_table(chains, convention),
        classes=class_table(chains, convention),
        forgetting=forgetting_table(chains, convention),
        breakdown=breakdown_table(chains, convention),
        times=chain_times(chains),
        drawings=drawings,
        confusion=tuple(draw_confusion(chain, convention) for chain in chains),
        curves=tuple(draw_curves(chain) for chain in chains),
        settings=compare_settings(documents),
        strips=tuple(strips),
        strip_headings=tuple(strip_headings(chains, pictures)),
        legend=tuple(legend(pictures, names)),
        dataset_page=dataset_page,
        reproductions=tuple(reproductions),
    )


def write_report(report: Report, folder: Path) -> Path:
    """Write the report to a folder.

    The folder gets report.html, table.md and table.tex with all tables, table.csv with the scores
    per class and step, scores.parquet with every score, and dataset.html if the dataset was looked
    at.

    Returns:
        The path of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "report.html": to_html(report),
        "table.md": "\n".join(map(to_markdown, report.tables)),
        "table.tex": "\n".join(map(to_latex, report.tables)),
        "table.csv": to_csv(report.classes),
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    write_scores(report.chains, report.convention, folder / "scores.parquet")
    if report.dataset_page:
        (folder / DATASET).write_bytes(report.dataset_page)
    return folder / "report.html"


def to_html(report: Report) -> str:
    """Return the page."""
    return render("report.html.j2", report=report, dataset=DATASET)


def _title(documents: Sequence[Mapping[str, Any]]) -> str:
    """Return the words that are in the titles of the scenarios of all chains."""
    titles = [Scenario.model_validate(document["scenario"]).title for document in documents]
    common = titles[0].split()
    for title in titles[1:]:
        words = title.split()
        common = [word for word in common if word in words]
    return " ".join(common) or "Several scenarios"
