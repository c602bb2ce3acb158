"""Plan, run and watch a campaign: `python -m jobs.campaign plan|run|status|table CAMPAIGN`, and `prune` what it left behind.

CAMPAIGN is the name of one that ships (jobs/campaigns) or the path of a Python file with a docstring and a function chains().
A step that several chains want is trained once; what is published is used as it is, so running a campaign again goes on where
it stopped, and costs nothing once it is done. Exit codes: 0 everything asked for is published, 1 something failed or was not
run, 2 the input cannot be used, 130 interrupted.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Annotated, Literal

import tyro
from rich.console import Console

from jobs.campaign.plan import ChainFilter, show_plan, summary
from jobs.campaigns import SHIPPED
from jobs.errors import user_errors
from jobs.options import JobOptions, StoreOptions, with_weights
from jobs.report import CONVENTIONS
from orchestrator.campaigns.run import outcome_tables, run_campaign
from orchestrator.campaigns.scheduler import Limits
from orchestrator.campaigns.status import campaign_status, status_table
from orchestrator.cluster.resources import Request
from orchestrator.execution.context import RunContext
from orchestrator.planning.campaign import Campaign
from orchestrator.planning.campaign_file import load_campaign
from orchestrator.planning.campaign_plan import CampaignPlan, make_plan, plan_document, plan_tree
from orchestrator.planning.campaign_record import publish_campaign
from orchestrator.planning.planner import Planner
from orchestrator.planning.step_tree import StepTree
from orchestrator.planning.store_state import look_up_steps
from orchestrator.records.prune import delete, leftovers
from orchestrator.report.campaign_results import recorded_results
from orchestrator.report.campaign_scores import campaign_table
from orchestrator.report.render import to_csv, to_json, to_markdown, to_terminal
from orchestrator.store.base import Store, check_writable
from orchestrator.store.open import DEFAULT_STORE, open_store
from orchestrator.tracking.campaign_runs import campaign_runs
from orchestrator.tracking.runs import Status
from orchestrator.tracking.tracker import Tracker
from training.config import InputError

Json = Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff]


@dataclass(frozen=True)
class Spending:
    """How much a run may do."""

    max_gpu_hours: float | None = None
    """Begin no step that would take this run beyond; without GPUs, hours of workers. Run again, the campaign goes on."""
    max_concurrent: int | None = None
    """Train at most so many steps at once; by default as many as the cluster holds."""
    retries: int = 1
    """Of a step that fails; then only what grows from it is not run."""
    stop_behind: float | None = None
    """Do not continue a chain that is so many points of mIoU behind the best at the same step. Biases an ablation's table:
    a variant that learns slowly is never seen to catch up. So it is off by default."""

    def limits(self) -> Limits:
        """As the orchestrator takes them. Raises InputError for what cannot be meant."""
        for name, value, least in (
            ("max-gpu-hours", self.max_gpu_hours, 0),
            ("max-concurrent", self.max_concurrent, 1),
            ("retries", self.retries, 0),
            ("stop-behind", self.stop_behind, 0),
        ):
            if value is not None and value < least:
                raise InputError(f"--{name} must be at least {least}, and {value:g} is not")
        behind = None if self.stop_behind is None else self.stop_behind / 100
        return Limits(self.max_gpu_hours, self.max_concurrent, self.retries, behind)


def plan(
    campaign: tyro.conf.Positional[str],
    part: Annotated[ChainFilter, tyro.conf.arg(name="")],
    options: Annotated[StoreOptions, tyro.conf.arg(name="")],
    request: Annotated[Request, tyro.conf.arg(name="")],
    images_per_second: float | None = None,
    as_json: Json = False,
) -> None:
    """Print the campaign's steps, which of them are published, and what the others cost; starts nothing.

    Args:
        campaign: Name of a campaign, or path of a file.
        images_per_second: What one worker trains on, where no past record of the store tells.
        as_json: Print one JSON document and nothing else.
    """
    store = open_store(options.store)
    planned = _plan(campaign, part, options, request, images_per_second, store)
    if as_json:
        print(json.dumps(plan_document(planned), ensure_ascii=False, indent=1))
    else:
        show_plan(planned, _console())


def run(
    campaign: tyro.conf.Positional[str],
    part: Annotated[ChainFilter, tyro.conf.arg(name="")],
    options: Annotated[JobOptions, tyro.conf.arg(name="")],
    spending: Annotated[Spending, tyro.conf.arg(name="")],
    images_per_second: float | None = None,
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Train what is not published yet, each step once, and print what became of all chains.

    Args:
        campaign: Name of a campaign, or path of a file.
        images_per_second: What one worker trains on, where no past record of the store tells.
        dry_run: Only print the plan.
    """
    limits, store, console = spending.limits(), open_store(options.store), _console()
    planned = _plan(campaign, part, options, options.request, images_per_second, store)
    if dry_run:
        show_plan(planned, console)
        return
    check_writable(store)
    options.announce(store, console)
    console.print(*summary(planned), sep="\n", soft_wrap=True)
    tracker = options.tracker(store)
    with tracker or nullcontext():
        place = RunContext(
            store, options.request, console, tracker, lease_seconds=options.lease_seconds
        )
        with _recorded(planned.campaign, place, tracker):
            outcome = run_campaign(
                planned.campaign.name, planned.tree, planned.stored, place, planned.costs, limits
            )
    scores = campaign_table(
        planned.tree,
        look_up_steps(planned.tree, store),
        store,
        planned.campaign.paper,
        place.convention,
    )
    console.print(
        *to_terminal(scores, console.width), scores.caption, *outcome_tables(outcome), sep="\n"
    )
    for problem in outcome.problems:
        console.print(problem, soft_wrap=True)
    console.print(
        f"{outcome.gpu_hours:.3g} GPU-hours in {timedelta(seconds=round(outcome.seconds))}"
    )
    if not outcome.complete:
        raise SystemExit(1)


@contextmanager
def _recorded(campaign: Campaign, place: RunContext, tracker: Tracker | None) -> Iterator[None]:
    """Keep what is asked for, for reports to find, and let MLflow show the campaign as it begins and as it is in the end."""
    record = publish_campaign(place.store, campaign)

    def show(unfinished: Status) -> None:
        if tracker:
            tracker.tell(
                campaign_runs(
                    record, recorded_results(record, place.store, place.convention), unfinished
                )
            )

    show("RUNNING")
    try:
        yield
    except KeyboardInterrupt:
        show("KILLED")
        raise
    show("FAILED")


def status(
    campaign: tyro.conf.Positional[str],
    part: Annotated[ChainFilter, tyro.conf.arg(name="")],
    options: Annotated[StoreOptions, tyro.conf.arg(name="")],
    as_json: Json = False,
) -> None:
    """Print what is published, what is running where and how far, and what failed why, whoever runs the campaign.

    Args:
        campaign: Name of a campaign, or path of a file.
        as_json: Print one JSON document and nothing else.
    """
    store = open_store(options.store)
    tree = _plan_tree(_load(campaign, options, store), part, store)
    statuses = campaign_status(tree, store)
    if as_json:
        print(json.dumps([each._asdict() for each in statuses], ensure_ascii=False, indent=1))
    else:
        _console().print(status_table(statuses))


def table(
    campaign: tyro.conf.Positional[str],
    part: Annotated[ChainFilter, tyro.conf.arg(name="")],
    options: Annotated[StoreOptions, tyro.conf.arg(name="")],
    convention: Literal["wilson", "mib", "plop"] = "wilson",
    format: Literal["terminal", "markdown", "csv", "json"] = "terminal",
) -> None:
    """Print the scores so far: a row for each variant, its seeds averaged, with the papers' numbers beside it.

    Args:
        campaign: Name of a campaign, or path of a file.
        convention: Whose way of counting void, future classes and background.
        format: How to print it.
    """
    store = open_store(options.store)
    wanted = _load(campaign, options, store)
    tree = _plan_tree(wanted, part, store)
    scores = campaign_table(
        tree, look_up_steps(tree, store), store, wanted.paper, CONVENTIONS[convention]()
    )
    console = _console()
    match format:
        case "terminal":
            console.print(*to_terminal(scores, console.width), scores.caption, sep="\n")
        case "markdown":
            print(to_markdown(scores))
        case "csv":
            print(to_csv(scores), end="")
        case "json":
            print(json.dumps(to_json(scores), ensure_ascii=False, indent=1))


def prune(
    store: str = DEFAULT_STORE,
    delete_them: Annotated[
        bool, tyro.conf.arg(name="delete"), tyro.conf.FlagCreatePairsOff
    ] = False,
    unfinished: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    grace_hours: float = 24,
) -> None:
    """List what nobody needs any more: attempts that no record names, checkpoints of published steps. Deletes when asked to.

    Args:
        store: Folder or s3://bucket/prefix; by default $STEPCHAIN_STORE or ./stepchain-store.
        delete_them: Delete what is listed.
        unfinished: Also the newest checkpoints of steps that are not published: what they cost must be trained again.
        grace_hours: Leave alone whatever was touched in the last hours.
    """
    opened, grace = open_store(store), timedelta(hours=grace_hours)
    found = leftovers(opened, unfinished=unfinished, grace=grace)
    if delete_them:
        check_writable(opened)
        found = tuple(delete(opened, found, unfinished=unfinished, grace=grace))
    for each in found:
        print(f"{each.folder}  {each.bytes / 1e6:,.1f} MB  {each.reason}")
    total = sum(each.bytes for each in found) / 1e6
    print(
        f"{len(found)} folders, {total:,.1f} MB {'deleted' if delete_them else 'can go; delete them with --delete'}"
    )


def _load(wanted: str, options: StoreOptions, store: Store) -> Campaign:
    """Return the campaign with the encoder's weights in its chains."""
    campaign = load_campaign(wanted, SHIPPED)
    chains = with_weights(campaign.chains, options.encoder_weights, store)
    return replace(campaign, chains=tuple(chains))


def _plan(
    wanted: str,
    part: ChainFilter,
    options: StoreOptions,
    request: Request,
    images_per_second: float | None,
    store: Store,
) -> CampaignPlan:
    return make_plan(
        _load(wanted, options, store),
        Planner(store),
        patterns=part.only,
        last_step=part.until_step,
        request=request,
        images_per_second=images_per_second,
    )


def _plan_tree(campaign: Campaign, part: ChainFilter, store: Store) -> StepTree:
    return plan_tree(campaign, Planner(store), patterns=part.only, last_step=part.until_step)


def _console() -> Console:
    return Console(highlight=False, markup=False)


COMMANDS = {"plan": plan, "run": run, "status": status, "table": table, "prune": prune}


@user_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; an option that does not exist is answered with the nearest that does."""
    tyro.extras.subcommand_cli_from_dict(
        COMMANDS, prog="python -m jobs.campaign", description=__doc__, args=arguments
    )
