"""Plan, run and watch a campaign: `python -m jobs.campaign plan|run|status|table CAMPAIGN`.

CAMPAIGN is the name of a campaign that ships (jobs/campaigns), or the path of a Python file with a
docstring and a function chains(). A step that several chains need is trained once. Published steps
are used as they are, so another run continues the campaign, and costs nothing once it is done.
`prune` lists and deletes what runs left behind. Exit codes: 0 everything asked for is published, 1
something failed or was not run, 2 the input cannot be used, 130 interrupted.
"""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from jobs.campaign.options import ChainFilter, Spending
from jobs.console import open_console
from jobs.errors import user_errors
from jobs.options import AtStore, ChainOptions, Flag, JobOptions, Questions, check_number
from orchestrator.cluster.resources import Request
from training.metrics import CONVENTIONS, ConventionName

if TYPE_CHECKING:
    from jobs.open_campaign import OpenCampaign
    from orchestrator.planning.campaign_plan import CampaignPlan
    from orchestrator.planning.step_tree import StepTree
    from orchestrator.store.base import Store

LEAST_SPEED = 1e-3  # images per second that anybody trains at
MOST_GRACE = 100 * 366 * 24  # hours of a century
Json = Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff]


def plan(
    campaign: tyro.conf.Positional[str],
    chain_filter: Annotated[ChainFilter, tyro.conf.arg(name="")],
    options: Annotated[ChainOptions, tyro.conf.arg(name="")],
    request: Annotated[Request, tyro.conf.arg(name="")],
    questions: Annotated[Questions, tyro.conf.arg(name="")],
    images_per_second: float | None = None,
    as_json: Json = False,
) -> None:
    """Print the campaign's steps, which are published, and what the others cost. Start nothing.

    Args:
        campaign: Name of a campaign, or path of a file.
        images_per_second: A guess of one worker's speed, for kinds of steps without a past record.
        as_json: Print one JSON document and nothing else.
    """
    from jobs.campaign.plan import print_plan
    from jobs.plan_answers import answer
    from orchestrator.planning.campaign_plan import plan_document

    check_number("images-per-second", images_per_second, LEAST_SPEED)
    store = options.open_existing()
    with _open(campaign, options, store) as opened:
        planned = _plan(opened, chain_filter, request, images_per_second)
    answers = answer(questions, planned.tree, planned.stored, store)
    if as_json:
        _print_json(answers.within(plan_document(planned)))
    else:
        console = open_console()
        print_plan(planned, console, answers.nearest)
        answers.print_verification(console)
    if answers.damaged:
        raise SystemExit(1)


def run(
    campaign: tyro.conf.Positional[str],
    chain_filter: Annotated[ChainFilter, tyro.conf.arg(name="")],
    options: Annotated[JobOptions, tyro.conf.arg(name="")],
    spending: Annotated[Spending, tyro.conf.arg(name="")],
    images_per_second: float | None = None,
    dry_run: Flag = False,
) -> None:
    """Train what is not published yet, each step once, and print the outcome of all chains.

    Args:
        campaign: Name of a campaign, or path of a file.
        images_per_second: A guess of one worker's speed, for kinds of steps without a past record.
        dry_run: Only print the plan.
    """
    from jobs.campaign.plan import print_plan
    from jobs.campaign.run import run_plan
    from orchestrator.records.store_version import prepare_store

    limits = spending.limits()
    check_number("images-per-second", images_per_second, LEAST_SPEED)
    store = options.open_existing()
    console = open_console()
    with _open(campaign, options, store) as opened:
        planned = _plan(opened, chain_filter, options.request, images_per_second)
        if dry_run:
            print_plan(planned, console)
            return
        prepare_store(store)
        if opened.weights:
            opened.weights.publish(store)
    if not run_plan(planned, limits, options, store, console):
        raise SystemExit(1)


def status(
    campaign: tyro.conf.Positional[str],
    chain_filter: Annotated[ChainFilter, tyro.conf.arg(name="")],
    options: Annotated[ChainOptions, tyro.conf.arg(name="")],
    as_json: Json = False,
) -> None:
    """Print what is published, what runs where and how far it is, and why steps failed.

    Args:
        campaign: Name of a campaign, or path of a file.
        as_json: Print one JSON document and nothing else.
    """
    from orchestrator.campaigns.status import campaign_status, status_table

    store = options.open_existing()
    with _open(campaign, options, store) as opened:
        tree = _plan_tree(opened, chain_filter)
    statuses = campaign_status(tree, store)
    if as_json:
        _print_json([each._asdict() for each in statuses])
    else:
        open_console().print(status_table(statuses))


def table(
    campaign: tyro.conf.Positional[str],
    chain_filter: Annotated[ChainFilter, tyro.conf.arg(name="")],
    options: Annotated[ChainOptions, tyro.conf.arg(name="")],
    convention: ConventionName = "wilson",
    format: Literal["terminal", "markdown", "csv", "json"] = "terminal",
) -> None:
    """Print the scores so far: a row for each variant, its seeds averaged, beside the papers'.

    Args:
        campaign: Name of a campaign, or path of a file.
        convention: The paper whose way of counting void, future classes and background is used.
        format: How to print it.
    """
    from jobs.tables import print_table
    from orchestrator.records.repository import Repository
    from orchestrator.report.campaign_results import load_campaign_results
    from orchestrator.report.campaign_tables import scores_table
    from orchestrator.report.render import to_csv, to_json, to_markdown

    store = options.open_existing()
    with _open(campaign, options, store) as opened:
        tree = _plan_tree(opened, chain_filter)
    counted = CONVENTIONS[convention]
    result = load_campaign_results(opened.campaign, tree, Repository(store), counted)
    scores = scores_table(result, mark_best=False)
    match format:
        case "terminal":
            console = open_console()
            print_table(scores, console)
            console.print(scores.caption)
        case "markdown":
            print(to_markdown(scores))
        case "csv":
            print(to_csv(scores), end="")
        case "json":
            _print_json(to_json(scores))


def prune(
    at: AtStore,
    delete_them: Annotated[Flag, tyro.conf.arg(name="delete")] = False,
    unfinished: Flag = False,
    grace_hours: float = 24,
) -> None:
    """List what nothing names or needs any more; delete it on request.

    That is attempts that no record names, checkpoints of published steps, files of data that no
    dataset names, and what killed processes left half written.

    Args:
        delete_them: Delete what is listed.
        unfinished: Also the newest checkpoints of steps that are not published. What they cost must
            be trained again.
        grace_hours: Leave alone everything that was touched in the last hours.
    """
    from orchestrator.records.prune import delete, leftovers
    from orchestrator.records.prune_data import delete_left_files, left_files
    from orchestrator.store.base import check_writable

    check_number("grace-hours", grace_hours, 0, MOST_GRACE)
    store = at.open_existing()
    grace = timedelta(hours=grace_hours)
    found = leftovers(store, unfinished=unfinished, grace=grace)
    files = left_files(store, grace)
    if delete_them:
        check_writable(store)
        found = tuple(delete(store, found, unfinished=unfinished, grace=grace))
        files = delete_left_files(store, grace)
    listed = [(each.folder, each.bytes, each.reason) for each in found]
    listed += [(each.name, each.bytes, each.reason) for each in files]
    for name, size, reason in listed:
        print(f"{name}  {size / 1e6:,.1f} MB  {reason}")
    total = sum(size for _, size, _ in listed) / 1e6
    outcome = "deleted" if delete_them else "can go; delete them with --delete"
    print(f"{len(found)} folders and {len(files)} files, {total:,.1f} MB {outcome}")


def _open(
    wanted: str, options: ChainOptions, store: "Store"
) -> AbstractContextManager["OpenCampaign"]:
    from jobs.open_campaign import open_campaign

    # Jobs that train nothing show what there is.
    allow_overlap = options.allow_overlap if isinstance(options, JobOptions) else True
    return open_campaign(wanted, options, store, allow_overlap=allow_overlap)


def _plan(
    opened: "OpenCampaign",
    chain_filter: ChainFilter,
    request: Request,
    images_per_second: float | None,
) -> "CampaignPlan":
    from orchestrator.planning.campaign_plan import make_plan

    return make_plan(
        opened.campaign,
        opened.planner,
        patterns=chain_filter.only,
        last_step=chain_filter.until_step,
        request=request,
        images_per_second=images_per_second,
    )


def _plan_tree(opened: "OpenCampaign", chain_filter: ChainFilter) -> "StepTree":
    from orchestrator.planning.campaign_plan import plan_tree

    return plan_tree(
        opened.campaign,
        opened.planner,
        patterns=chain_filter.only,
        last_step=chain_filter.until_step,
    )


def _print_json(document: object) -> None:
    print(json.dumps(document, ensure_ascii=False, indent=1))


COMMANDS = {"plan": plan, "run": run, "status": status, "table": table, "prune": prune}


@user_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    tyro.extras.subcommand_cli_from_dict(
        COMMANDS, prog="python -m jobs.campaign", description=__doc__, args=arguments
    )


if __name__ == "__main__":
    main()
