"""Run a planned campaign, record it, and print the outcome."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta

from rich.console import Console

from jobs.campaign.plan import summary
from jobs.options import JobOptions
from jobs.tables import print_table
from orchestrator.campaigns.run import outcome_tables, run_campaign
from orchestrator.campaigns.scheduler import Limits
from orchestrator.execution.context import RunContext
from orchestrator.planning.campaign import Campaign
from orchestrator.planning.campaign_plan import CampaignPlan
from orchestrator.planning.campaign_record import publish_campaign
from orchestrator.planning.store_state import look_up_steps
from orchestrator.records.store_version import prepare_store
from orchestrator.report.campaign_results import recorded_results
from orchestrator.report.campaign_scores import campaign_table
from orchestrator.store.base import Store
from orchestrator.tracking.campaign_runs import campaign_runs
from orchestrator.tracking.runs import Status
from orchestrator.tracking.tracker import Tracker


def run_plan(
    plan: CampaignPlan, limits: Limits, options: JobOptions, store: Store, console: Console
) -> bool:
    """Train what is not published of a campaign, and print its scores and outcome.

    Returns:
        Whether everything that was asked for is published.
    """
    prepare_store(store)
    options.announce(store, console)
    console.print(*summary(plan), sep="\n")
    tracker = options.tracker(store)
    with tracker or nullcontext():
        context = RunContext(
            store, options.request, console, tracker, lease_seconds=options.lease_seconds
        )
        with _recorded(plan.campaign, context, tracker):
            outcome = run_campaign(
                plan.campaign.name, plan.tree, plan.stored, context, plan.costs, limits
            )
    stored = look_up_steps(plan.tree, store)
    scores = campaign_table(plan.tree, stored, store, plan.campaign.paper, context.convention)
    print_table(scores, console)
    console.print(scores.caption)
    console.print(*outcome_tables(outcome), sep="\n")
    for problem in outcome.problems:
        console.print(problem)
    duration = timedelta(seconds=round(outcome.seconds))
    console.print(f"{outcome.gpu_hours:.3g} GPU-hours in {duration}")
    return outcome.complete


@contextmanager
def _recorded(campaign: Campaign, context: RunContext, tracker: Tracker | None) -> Iterator[None]:
    """Record the campaign for reports, and show it in MLflow as it begins and as it ends."""
    record = publish_campaign(context.store, campaign)

    def show(unfinished: Status) -> None:
        """Show the campaign, with this status while chains of it are not published."""
        if tracker:
            results = recorded_results(record, context.store, context.convention)
            tracker.report(campaign_runs(record, results, unfinished))

    show("RUNNING")
    ended: Status = "FAILED"
    try:
        yield
    except KeyboardInterrupt:
        ended = "KILLED"
        raise
    finally:
        show(ended)
