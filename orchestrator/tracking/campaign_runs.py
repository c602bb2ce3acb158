"""A campaign as MLflow shows it: a run in the experiment `campaigns` with its table, figures and page, and a tag on its chains.

A campaign may span scenarios, which have an experiment each; its own run is where they meet. A chain may belong to several
campaigns: each leaves a tag `stepchain.campaign.<name>` on its run, to filter by.
"""

import json
import re
from collections.abc import Iterator

from orchestrator.planning.campaign_record import CampaignRecord
from orchestrator.planning.variants import axis_text
from orchestrator.records import layout
from orchestrator.report.campaign_page import CampaignReport, build_campaign_report, to_files
from orchestrator.report.campaign_results import CampaignResult
from orchestrator.report.campaign_scores import MEANS
from orchestrator.report.campaign_tables import paired
from orchestrator.report.render import to_json, to_markdown
from orchestrator.report.table import fraction
from orchestrator.tracking.runs import Point, Run, Status, chain_run, milliseconds
from orchestrator.tracking.saved_views import saved_views

EXPERIMENT = "campaigns"


def campaign_runs(
    record: CampaignRecord, result: CampaignResult, unfinished: Status | None = None
) -> list[Run]:
    """The campaign's own run, and what is to be added to those of its published chains.

    `unfinished`: the status of a campaign of which something is missing; by default it is left as it is.
    """
    report, began = build_campaign_report(result), milliseconds(record.created)
    steps = [step for seed in result.published for step in seed.chain.steps]
    ended = max((milliseconds(step.record.provenance.created) for step in steps), default=began)
    campaign = Run(
        key=record.key,
        kind="campaign",
        experiment=EXPERIMENT,
        name=record.name,
        began=min(began, ended),
        status="FINISHED" if result.complete else unfinished,
        ended=ended,
        params={"campaign": record.name, "chains": str(len(result.chains)), **_axes(result)},
        tags={
            "mlflow.note.content": f"{result.question}\n\n{to_markdown(paired(report.scores))}",
            "stepchain.record": layout.campaign_record(record.key),
            "stepchain.convention": result.convention.name,
            "stepchain.published": f"{len(result.published)} of {len(result.chains)}",
        },
        points=tuple(_points(report, ended)),
        texts=_texts(report),
    )
    there = {seed.chain.record.steps for seed in result.published}
    planned = [
        (plan, tuple(step.key for step in plan.steps)) for plan in result.chains if plan.whole
    ]
    chains = [chain_run(plan.chain, keys, began) for plan, keys in planned if keys in there]
    tag = {f"stepchain.campaign.{record.name}": "yes"}
    views = {
        run.experiment: run.key for run in reversed(chains)
    }  # each scenario's first chain brings them
    return [
        campaign,
        *(
            run.model_copy(
                update={
                    "params": {},
                    "tags": tag,
                    "status": None,
                    "views": _views(record, result, run)
                    if views[run.experiment] == run.key
                    else {},
                }
            )
            for run in chains
        ),
    ]


def _views(record: CampaignRecord, result: CampaignResult, chain: Run) -> dict[str, str]:
    """What MLflow offers to look at of the campaign among the chains of that chain's scenario."""
    plans = [plan for plan in result.chains if plan.chain.scenario.title == chain.experiment]
    params = [chain_run(plan.chain, (), 0).params for plan in plans]
    names = dict.fromkeys(axis for cell in result.cells for axis in cell.cell.axes)
    axes = [axis for axis in names if len({each.get(axis) for each in params}) > 1]
    classes = dict.fromkeys(
        name for plan in plans for step in plan.steps for name in step.class_names
    )
    return saved_views(
        record.name, axes, ["background", *classes], result.convention, milliseconds(record.created)
    )


def _axes(result: CampaignResult) -> dict[str, str]:
    """What was varied, each with its values."""
    axes = dict.fromkeys(axis for cell in result.cells for axis in cell.cell.axes)
    values = {
        axis: dict.fromkeys(
            axis_text(c.cell.axes[axis]) for c in result.cells if axis in c.cell.axes
        )
        for axis in axes
    }
    return {f"varied.{axis}": ", ".join(each)[:6000] for axis, each in values.items()}


def _points(report: CampaignReport, time: int) -> Iterator[Point]:
    """Every mean and deviation of the campaign's table: `all/alpha 0.5`, `all std/alpha 0.5`."""
    for row in report.scores.rows:
        cell = re.sub(r"[^\w. :-]", " ", row.name)[:200]
        for column, value in zip(report.scores.columns, row.values, strict=True):
            number = fraction(value)
            if number is not None and column.group in MEANS and column.name in ("mean", "std"):
                yield Point(
                    f"{column.group}{' std' if column.name == 'std' else ''}/{cell}",
                    number,
                    time,
                    0,
                )


def _texts(report: CampaignReport) -> dict[str, str]:
    """Artifacts by path: the page, the tables in every form, the figures."""
    files = to_files(report)
    page = files.pop("report.html")
    tables = {f"tables/{name}": text for name, text in files.items()}
    numbers = {
        f"tables/{name}.json": json.dumps(to_json(table), indent=1)
        for name, table in report.tables.items()
    }
    return (
        {"report.html": page}
        | tables
        | numbers
        | {f"figures/{n}.svg": str(d.svg) for n, d in report.drawings.items()}
    )
