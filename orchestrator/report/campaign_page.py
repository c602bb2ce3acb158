"""Write the report of a campaign: one HTML page, and its numbers in other formats.

The page shows the campaign as far as it is published: its scores, a figure for each field that
varies, and what its variants forgot. Of very many variants it shows the best; the files have all.
Like the page of chains it needs nothing but itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

from orchestrator.report.campaign_figures import draw_axes, draw_breakdowns, draw_steps
from orchestrator.report.campaign_results import CampaignResult
from orchestrator.report.campaign_tables import (
    breakdown_table,
    class_table,
    forgetting_table,
    paired,
    scores_table,
)
from orchestrator.report.html import Drawing, render
from orchestrator.report.render import to_csv, to_latex, to_markdown
from orchestrator.report.scores_parquet import write_scores
from orchestrator.report.settings import Setting, compare_settings
from orchestrator.report.shown_variants import keep_variants, with_shown_variants
from orchestrator.report.table import Table
from orchestrator.report.times import campaign_times


@dataclass(frozen=True)
class CampaignReport:
    """The content of the page. `build_campaign_report` builds it."""

    result: CampaignResult
    shown: CampaignResult  # with the variants that the page shows
    scores: Table
    classes: Table | None
    forgetting: Table | None
    breakdown: Table | None
    times: Table | None  # these tables have all variants
    axes: Mapping[str, Drawing]  # by the field that varies
    steps: Drawing | None
    breakdown_drawing: Drawing | None
    settings: tuple[Setting, ...]

    @property
    def tables(self) -> dict[str, Table]:
        """Return the tables that exist by the name of their file."""
        named = {
            "scores": self.scores,
            "classes": self.classes,
            "forgetting": self.forgetting,
            "breakdown": self.breakdown,
            "times": self.times,
        }
        return {name: table for name, table in named.items() if table}

    @property
    def shown_tables(self) -> dict[str, Table]:
        """Return the tables of the variants that the page shows."""
        if self.shown is self.result:
            return self.tables
        names = self._shown_names
        by_variant = ("scores", "classes", "forgetting", "breakdown")
        return {
            name: keep_variants(table, names) if name in by_variant else table
            for name, table in self.tables.items()
        }

    @property
    def differing_settings(self) -> list[Setting]:
        """Return the settings in which variants differ, with the values of those shown."""
        names = self._shown_names
        shown = [variant.name in names for variant in self.result.variants]
        return [
            Setting(setting.name, tuple(compress(setting.values, shown)))
            for setting in self.settings
            if setting.differs
        ]

    @property
    def _shown_names(self) -> set[str]:
        return {variant.name for variant in self.shown.variants}

    @property
    def drawings(self) -> dict[str, Drawing]:
        """Return the figures that exist by the name of their file."""
        named = {"steps": self.steps, "breakdown": self.breakdown_drawing, **self.axes}
        return {name: drawing for name, drawing in named.items() if drawing}


def build_campaign_report(result: CampaignResult) -> CampaignReport:
    """Build the report of a campaign, as far as it is published."""
    published = bool(result.published)
    shown = with_shown_variants(result)
    documents = []
    for variant in result.variants:
        chain = result.chains[variant.variant.chains[0]].chain
        documents.append(chain.model_dump(mode="json"))
    return CampaignReport(
        result=result,
        shown=shown,
        scores=scores_table(result),
        classes=class_table(result) if published else None,
        forgetting=forgetting_table(result),
        breakdown=breakdown_table(result),
        times=campaign_times(result.records),
        axes=draw_axes(result) if published else {},
        steps=draw_steps(shown),
        breakdown_drawing=draw_breakdowns(shown),
        settings=compare_settings(documents),
    )


def write_campaign_report(report: CampaignReport, folder: Path) -> Path:
    """Write the report to a folder.

    The folder gets report.html, tables.md and tables.tex with all tables, a CSV file of each
    table, and scores.parquet with every score.

    Returns:
        The path of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in to_files(report).items():
        (folder / name).write_text(text, encoding="utf-8")
    chains = [seed.chain for seed in report.result.published]
    write_scores(chains, report.result.convention, folder / "scores.parquet")
    return folder / "report.html"


def to_files(report: CampaignReport) -> dict[str, str]:
    """Return the page and the tables as text, by the names of their files."""
    tables = [paired(table) for table in report.tables.values()]
    page = render(
        "campaign.html.j2",
        report=report,
        result=report.result,
        shown=report.shown,
        tables={name: paired(table) for name, table in report.shown_tables.items()},
        all_scores=paired(report.scores),
    )
    files = {
        "report.html": page,
        "tables.md": "\n".join(map(to_markdown, tables)),
        "tables.tex": "\n".join(map(to_latex, tables)),
    }
    return files | {f"{name}.csv": to_csv(table) for name, table in report.tables.items()}
