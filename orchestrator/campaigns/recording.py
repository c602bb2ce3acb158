"""Record a campaign that is run, and show it in MLflow as it begins and as it ends."""

from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.execution.context import RunContext
from orchestrator.planning.campaign_plan import CampaignPlan
from orchestrator.planning.campaign_record import publish_campaign
from orchestrator.records.repository import Repository
from orchestrator.report.campaign_results import load_campaign_results
from orchestrator.store.base import StoreError
from orchestrator.tracking.campaign_runs import campaign_runs
from orchestrator.tracking.runs import Run, Status
from orchestrator.tracking.tracker import Tracker


@contextmanager
def recorded(plan: CampaignPlan, context: RunContext, tracker: Tracker | None) -> Iterator[None]:
    """Record the campaign for reports, and show its progress and outcome in MLflow.

    While the body runs, MLflow shows the campaign as running. Afterwards it shows it as finished
    if all chains are published, as killed after an interruption, and else as failed.

    Args:
        plan: The campaign. MLflow shows all its chains, also those that are not asked for.
        context: Where it is recorded.
        tracker: Reports to MLflow; None reports nothing.

    Raises:
        StoreError: The campaign cannot be recorded, or its results cannot be read.
    """
    record = publish_campaign(context.store, plan.campaign)

    def runs(unfinished: Status) -> list[Run]:
        repository = Repository(context.store)
        results = load_campaign_results(
            plan.campaign, plan.whole_tree, repository, context.convention
        )
        return campaign_runs(record, results, unfinished)

    if tracker is None:
        yield
        return
    begun = runs("RUNNING")
    tracker.report(begun)
    try:
        yield
        # A signal may come while the results are read, too.
        ended = runs("FAILED")
    except BaseException as error:
        status: Status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        try:
            tracker.report(runs(status))
        except StoreError:
            # The store may be what failed. The status must reach MLflow in spite of that.
            tracker.report([begun[0].model_copy(update={"status": status})])
        raise
    tracker.report(ended)
