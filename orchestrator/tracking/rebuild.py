"""Brings an MLflow into line with the records, after the fact: say everything anew, and close what nobody is at any more.

`orchestrator.tracking.tracker` tells MLflow what happens while it happens. This works from the store alone, so an MLflow that was lost,
or that never was there, can be made at any time and as often as one likes.
"""

import json
import time
from collections.abc import Iterator
from typing import NamedTuple

from orchestrator.analysis.record import load_analysis, recorded_analyses
from orchestrator.datasets.catalog import UnknownDataset
from orchestrator.planning.campaign_record import campaign_tree, recorded_campaigns
from orchestrator.records import layout
from orchestrator.records.repository import Repository
from orchestrator.records.results import load_chains, named_scores
from orchestrator.report.campaign_results import recorded_results
from orchestrator.store.base import Store
from orchestrator.store.lease import read_lease
from orchestrator.tracking.analysis_runs import analysis_runs
from orchestrator.tracking.campaign_runs import campaign_runs
from orchestrator.tracking.mlflow_client import RunClient
from orchestrator.tracking.runs import Run, published, whole_chain
from training.config import InputError
from training.metrics import Convention

GRACE = 600.0  # seconds that a run may be without a lease: its driver may be waiting for workers


class Synced(NamedTuple):
    """What was done to an MLflow."""

    runs: int  # that it now holds of the store
    closed: int  # that said they were running, and were not
    left_out: tuple[str, ...]  # campaigns that could not be worked out, and why


def rebuild(store: Store, uri: str, convention: Convention, grace: float = GRACE) -> Synced:
    """Say all that the store's records hold to an MLflow that may be empty, then close stale runs.

    Steps that no published chain or analysis names stay unsaid. Raises whatever MLflow's transport raises, StoreError and
    CorruptedObject.
    """
    mirror, said = RunClient(uri), set()
    for run in _chains(store, convention):
        if run.key not in said:
            mirror.put(run)
            said.add(run.key)
    for record in recorded_analyses(store):
        for run in analysis_runs(record, load_analysis(store, record)):
            mirror.put(run)
            said.add(run.key)
    left_out = []
    for record in recorded_campaigns(store):
        try:
            result = recorded_results(record, store, convention)
        except (InputError, UnknownDataset) as error:  # its dataset is not there any more
            left_out.append(f"{record.name}: {error}")
            continue
        for run in campaign_runs(record, result):
            if (
                run.kind == "campaign" or run.key in said
            ):  # a chain whose record is not written yet stays unsaid
                mirror.put(run)
                said.add(run.key)
    return Synced(len(said), _close_stale(mirror, store, grace), tuple(left_out))


def _chains(store: Store, convention: Convention) -> Iterator[Run]:
    """The runs of all published chains and their steps, the oldest chain first; of a shared step the first counts."""
    repository = Repository(store)
    for record in repository.chains():
        (result,) = load_chains(repository, [record])
        chain = whole_chain(result, convention)
        yield chain
        for step, scores in zip(result.steps, result.scores(convention), strict=True):
            named = named_scores(scores, step.evaluation.class_names)
            yield published(step.record, chain.experiment, chain.key, named, step.curves)


def _close_stale(mirror: RunClient, store: Store, grace: float) -> int:
    """End the runs that say they are running though nobody holds a lease of any of their steps; returns how many."""
    closed, now = 0, time.time()
    for run in mirror.running():
        if run.began / 1000 > now - grace or any(_alive(store, key) for key in _steps(run, store)):
            continue
        mirror.put(_ended(run, store, int(1000 * now)))
        closed += 1
    return closed


def _steps(run: Run, store: Store) -> list[str]:
    """Keys of the steps that a run is about."""
    if run.kind == "step":
        return [run.key]
    if run.kind == "chain":
        return [value for name, value in run.tags.items() if name.startswith("stepchain.step.")]
    records = [record for record in recorded_campaigns(store) if record.key == run.key]
    return [
        step.key
        for record in records
        for plan in campaign_tree(record.campaign, store).chains
        for step in plan.steps
    ]


def _alive(store: Store, key: str) -> bool:
    lease = read_lease(store, layout.step_lease(key))
    return lease is not None and not lease.expired


def _ended(run: Run, store: Store, now: int) -> Run:
    """How a run that nobody is at ended: a step may have been published without a chain that names it."""
    record = Repository(store).find_step(run.key) if run.kind == "step" else None
    if record is None:
        return run.model_copy(update={"status": "KILLED", "ended": now, "tags": {}})
    name = layout.published_file(record.key, record.attempt, layout.CURVES_FILE)
    curves = json.loads(store.read(name))
    return published(record, run.experiment, None, {}, curves)
