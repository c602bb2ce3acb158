"""Bring an MLflow into line with the records of a store.

`orchestrator.tracking.tracker` reports to MLflow while something happens. `rebuild` works from the
store alone. An MLflow that was lost, or that never existed, can therefore be made at any time, and
again as often as one likes.
"""

import time
from collections.abc import Collection, Iterator
from itertools import chain
from typing import NamedTuple

from orchestrator.analysis.record import load_analysis, recorded_analyses
from orchestrator.datasets.catalog import UnknownDataset
from orchestrator.planning.campaign_record import (
    campaign_tree,
    recorded_campaign,
    recorded_campaigns,
)
from orchestrator.records import layout
from orchestrator.records.repository import Repository
from orchestrator.records.results import load_each_chain
from orchestrator.report.campaign_results import recorded_results
from orchestrator.store.base import Store
from orchestrator.store.cache import CorruptedObject
from orchestrator.store.lease import read_lease
from orchestrator.store.retries import DEFAULT_RETRIES, Retries
from orchestrator.tracking.analysis_runs import analysis_runs
from orchestrator.tracking.campaign_runs import campaign_runs
from orchestrator.tracking.mlflow_client import RunClient
from orchestrator.tracking.mlflow_errors import RunRefused, ServerEmptied
from orchestrator.tracking.runs import (
    Run,
    build_finished_chain_run,
    build_published_step_run,
    build_step_result_run,
)
from training.config import InputError
from training.metrics import Convention


class RebuildSummary(NamedTuple):
    """What `rebuild` did to an MLflow."""

    runs: int  # runs of the store that MLflow now holds
    closed: int  # stale runs that were ended
    # Campaigns that could not be computed, and runs that MLflow refused, each with the reason.
    left_out: tuple[str, ...]


def rebuild(
    store: Store, uri: str, convention: Convention, retries: Retries = DEFAULT_RETRIES
) -> RebuildSummary:
    """Report all records of the store to an MLflow that may be empty, then end stale runs.

    A step that no published chain or analysis names is left out.

    Args:
        store: The store that is read.
        uri: Where MLflow is.
        convention: Of the scores that MLflow shows.
        retries: How long a run may be without a lease before it is stale.

    Raises:
        StoreError: The store does not answer.
        CorruptedObject: An object is not the one that its record names.
        MlflowError: MLflow does not answer, or cannot be used.
    """
    client = RunClient(uri)
    repository = Repository(store)
    put: set[str] = set()
    client.look_up()
    left_out: list[str] = []

    def bring(run: Run, whole: bool = True) -> None:
        write = client.put_whole if whole else client.put
        try:
            try:
                write(run)
            except ServerEmptied:
                write(run)  # a job that made the same run at the same moment deleted this one
            put.add(run.key)
        except RunRefused as error:
            left_out.append(str(error))

    for run in chain(_chain_runs(repository, convention, put), _analysis_runs(repository)):
        if run.key not in put:
            bring(run)
    for record in recorded_campaigns(store):
        try:
            result = recorded_results(record, repository, convention)
        except (InputError, UnknownDataset, CorruptedObject) as error:
            # The campaign's dataset is not in the store any more, or damaged.
            left_out.append(f"{record.name}: {error}")
            continue
        for run in campaign_runs(record, result):
            # A chain without a record has no run yet that a campaign could add to.
            if run.kind == "campaign" or run.key in put:
                bring(run, whole=run.kind == "campaign")
    closed = _end_stale_runs(client, repository, retries.rebuild_grace_seconds)
    return RebuildSummary(len(put), closed, tuple(left_out))


def _chain_runs(
    repository: Repository, convention: Convention, put: Collection[str]
) -> Iterator[Run]:
    """Yield the runs of all published chains and of their steps, the oldest chain first.

    Steps whose key is in `put` by then are left out.
    """
    for result in load_each_chain(repository, repository.chains()):
        run = build_finished_chain_run(result, convention)
        yield run
        for step in result.steps:
            if step.record.key not in put:
                yield build_step_result_run(step, run, convention)


def _analysis_runs(repository: Repository) -> Iterator[Run]:
    for record in recorded_analyses(repository):
        yield from analysis_runs(record, load_analysis(repository, record))


def _end_stale_runs(client: RunClient, repository: Repository, grace: float) -> int:
    """End the runs that MLflow shows as running although no step of theirs is; return how many."""
    now = time.time()
    old = [run for run in client.running_runs() if run.began / 1000 <= now - grace]
    leased = repository.in_parallel(lambda run: _has_lease(run, repository.store), old)
    stale = [run for run, is_leased in zip(old, leased, strict=True) if not is_leased]
    for run in stale:
        client.put(_ended_run(run, repository, int(1000 * now)))
    return len(stale)


def _has_lease(run: Run, store: Store) -> bool:
    """Return whether a process holds the lease of a step that the run is about."""
    leases = (read_lease(store, layout.step_lease(key)) for key in _step_keys(run, store))
    return any(lease is not None and not lease.expired for lease in leases)


def _step_keys(run: Run, store: Store) -> list[str]:
    """Return the keys of the steps that a run is about."""
    if run.kind == "step":
        return [run.key]
    if run.kind == "chain":
        return [value for name, value in run.tags.items() if name.startswith("stepchain.step.")]
    for record in recorded_campaigns(store):
        if record.key == run.key:
            return list(campaign_tree(recorded_campaign(record, store), store).nodes)
    return []


def _ended_run(run: Run, repository: Repository, now: int) -> Run:
    """Return how a stale run ended. A step may be published although no chain names it."""
    record = repository.find_step(run.key) if run.kind == "step" else None
    if record is None:
        return run.model_copy(update={"status": "KILLED", "ended": now, "tags": {}})
    rows = repository.curves(record)
    return build_published_step_run(record, run.experiment, None, {}, rows)
