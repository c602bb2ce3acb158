"""Run a planned campaign, record it, and print the outcome."""

from contextlib import nullcontext
from datetime import timedelta
from functools import partial

from rich.console import Console

from jobs.campaign.plan import summary
from jobs.machines import check_machines
from jobs.options import JobOptions
from jobs.tables import print_table
from orchestrator.campaigns.growth import Growth
from orchestrator.campaigns.limits import Limits
from orchestrator.campaigns.outcome import outcome_tables
from orchestrator.campaigns.recording import recorded
from orchestrator.campaigns.run import run_campaign
from orchestrator.execution.context import RunContext
from orchestrator.planning.campaign_plan import CampaignPlan
from orchestrator.records.repository import Repository
from orchestrator.report.campaign_results import load_campaign_results
from orchestrator.report.campaign_tables import scores_table
from orchestrator.store.base import Store
from training.config import InputError


def run_plan(
    plan: CampaignPlan, limits: Limits, options: JobOptions, store: Store, console: Console
) -> bool:
    """Train what is not published of a campaign, and print its scores and outcome.

    Returns:
        Whether everything that was asked for is published.

    Raises:
        InputError: Files of published steps are gone.
    """
    gone = [step.problem for step in plan.stored.values() if step.problem]
    if gone:
        more = f"; {len(gone) - 1} more steps are like that" if len(gone) > 1 else ""
        raise InputError(f"{gone[0]}{more}")
    options.announce(store, console)
    console.print(*summary(plan), sep="\n")
    tracker = options.tracker(store)
    with tracker or nullcontext():
        context = RunContext(store, plan.request, console, tracker, retries=options.retries)
        check_machines(plan.memory, context)
        with recorded(plan, context, tracker):
            search = plan.campaign.search
            growth = None
            if search is not None and not search.complete:
                growth = partial(Growth, search, plan.planner)
            outcome = run_campaign(
                plan.campaign.name,
                plan.tree,
                plan.stored,
                context,
                plan.costs,
                limits,
                growth=growth,
            )
    result = load_campaign_results(plan.campaign, plan.tree, Repository(store), context.convention)
    scores = scores_table(result, mark_best=False)
    print_table(scores, console)
    console.print(scores.caption)
    console.print(*outcome_tables(outcome), sep="\n")
    for problem in outcome.problems:
        console.print(problem)
    duration = timedelta(seconds=round(outcome.seconds))
    console.print(f"{outcome.gpu_hours:.3g} GPU-hours in {duration}")
    return outcome.complete
