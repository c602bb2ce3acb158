"""Work out the run of a campaign, and what it adds to the runs of its chains.

A campaign may span scenarios, and each scenario has an experiment of its own. Therefore the
campaign's run, with its table, figures and page, is in an experiment for all campaigns. A chain may
belong to several campaigns. Each of them adds a tag `stepchain.campaign.<name>` to the chain's run,
so that people can filter by it.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from orchestrator.planning.campaign_record import CampaignRecord
from orchestrator.planning.planner import PlannedChain
from orchestrator.planning.variants import axis_text
from orchestrator.records import layout
from orchestrator.report.campaign_page import CampaignReport, build_campaign_report, to_files
from orchestrator.report.campaign_results import CampaignResult
from orchestrator.report.campaign_tables import paired
from orchestrator.report.render import to_json, to_markdown
from orchestrator.report.search_caption import best_sample
from orchestrator.report.variant_results import MEANS
from orchestrator.tracking.runs import (
    LONGEST_PARAM,
    Point,
    Run,
    Status,
    build_chain_run,
    to_milliseconds,
)
from orchestrator.tracking.saved_views import saved_views

EXPERIMENT = "campaigns"
LONGEST_VARIANT = 200  # characters; MLflow takes 250 for the name of a metric


def campaign_runs(
    record: CampaignRecord, result: CampaignResult, unfinished: Status | None = None
) -> list[Run]:
    """Return the campaign's own run, then what it adds to the runs of its published chains.

    Args:
        record: The campaign's record.
        result: The campaign as far as it is published.
        unfinished: Status of a campaign of which something is missing; None leaves it as it is.
    """
    report = build_campaign_report(result)
    began = to_milliseconds(record.created)
    steps = [step for seed in result.published for step in seed.chain.steps]
    ends = (to_milliseconds(step.record.provenance.created) for step in steps)
    ended = max(ends, default=began)
    best = best_sample(result)
    campaign = Run(
        key=record.key,
        kind="campaign",
        experiment=EXPERIMENT,
        name=record.name,
        began=min(began, ended),
        status="FINISHED" if result.complete else unfinished,
        ended=ended,
        params={"campaign": record.name, **_params(result)},
        tags={
            "mlflow.note.content": f"{result.question}\n\n{to_markdown(paired(report.scores))}",
            "stepchain.record": layout.campaign_record(record.key),
            "stepchain.convention": result.convention.name,
            "stepchain.published": f"{len(result.published)} of {len(result.chains)}",
            **({"stepchain.stopped": str(len(result.stopped))} if result.stopped else {}),
            **({"stepchain.best": best.name} if result.named_by and best else {}),
        },
        points=tuple(_points(result, ended)),
        texts=_texts(report),
    )
    return [campaign, *_chain_runs(record, result)]


def _chain_runs(record: CampaignRecord, result: CampaignResult) -> Iterator[Run]:
    """Yield what the campaign adds to each of its published chains: a tag.

    The first chain of each scenario also brings the saved views of the scenario's experiment.
    """
    began = to_milliseconds(record.created)
    published = {seed.chain.record.steps for seed in result.published}
    experiments: set[str] = set()
    for plan in result.chains:
        keys = tuple(step.key for step in plan.steps)
        if not plan.whole or keys not in published:
            continue
        run = build_chain_run(plan.chain, keys, began)
        views = {} if run.experiment in experiments else _views(record, result, run.experiment)
        experiments.add(run.experiment)
        yield run.model_copy(
            update={
                "params": {},
                "tags": {f"stepchain.campaign.{record.name}": "yes"},
                "status": None,
                "views": views,
            }
        )


def _views(record: CampaignRecord, result: CampaignResult, scenario: str) -> dict[str, str]:
    """Return the saved views of the campaign in the experiment of one scenario."""
    plans = [plan for plan in result.chains if plan.chain.scenario.title == scenario]
    params = [build_chain_run(plan.chain, (), began=0).params for plan in plans]
    axes = [axis for axis in result.axes if _varies(axis, params)]
    without = {plan.chain.scenario.background for plan in plans} == {"none"}
    classes = _class_names(plans) if without else ["background", *_class_names(plans)]
    convention = result.convention.for_models("none" if without else "class")
    return saved_views(record.name, axes, classes, convention, to_milliseconds(record.created))


def _varies(axis: str, params: Sequence[Mapping[str, str]]) -> bool:
    return len({each.get(axis) for each in params}) > 1


def _class_names(plans: Sequence[PlannedChain]) -> list[str]:
    """Return the names of all classes that the chains learn, in order, each once."""
    names: dict[str, None] = {}
    for plan in plans:
        for step in plan.steps:
            names |= dict.fromkeys(step.class_names)
    return list(names)


def _params(result: CampaignResult) -> dict[str, str]:
    """Return the parameters of the campaign's run. MLflow does not let them change."""
    if result.named_by:
        return {"named by": result.named_by[:LONGEST_PARAM]}
    return {"chains": str(len(result.chains)), **_varied(result)}


def _varied(result: CampaignResult) -> dict[str, str]:
    """Return the parameters `varied.<field>` of the campaign's run, each with all values."""
    params = {}
    for axis, values in result.axes.items():
        texts = dict.fromkeys(map(axis_text, values))
        params[f"varied.{axis}"] = ", ".join(texts)[:LONGEST_PARAM]
    return params


def _points(result: CampaignResult, time: int) -> Iterator[Point]:
    """Yield the mean and deviation of each variant's scores.

    Their names are like `all/alpha 0.5` and `all std/alpha 0.5`.
    """
    for number, variant in enumerate(result.variants):
        if result.named_by and variant.means.all:
            # One curve of all samples, in the order in which they were named.
            yield Point("search/all", variant.means.all.mean, time, number)
        name = re.sub(r"[^\w. :-]", " ", variant.name)[:LONGEST_VARIANT]
        for mean, summary in zip(MEANS, variant.means, strict=True):
            if summary:
                yield Point(f"{mean}/{name}", summary.mean, time, 0)
            if summary and summary.deviation is not None:
                yield Point(f"{mean} std/{name}", summary.deviation, time, 0)


def _texts(report: CampaignReport) -> dict[str, str]:
    """Return the artifacts by path: the page, the tables in every form, the figures."""
    files = to_files(report)
    texts = {"report.html": files.pop("report.html")}
    texts |= {f"tables/{name}": text for name, text in files.items()}
    for name, table in report.tables.items():
        texts[f"tables/{name}.json"] = json.dumps(to_json(table), indent=1)
    for name, drawing in report.drawings.items():
        texts[f"figures/{name}.svg"] = str(drawing.svg)
    return texts
