"""Two drivers run one campaign of 30 chains; workers are lost and the store is slow.

Trials run on threads of this process, and training is replaced by a stand-in. Everything else is
real. `benchmarks/thousand_cells.py` does the same on a Ray cluster whose nodes are killed.
"""

import random
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import pytest
from rich.console import Console

from benchmarks import stand_in
from benchmarks.counted_requests import counted
from benchmarks.thousand_cells import SEEDS, cells
from orchestrator.campaigns.outcome import CampaignOutcome
from orchestrator.campaigns.run import run_campaign
from orchestrator.cluster import workers
from orchestrator.cluster.packing import Machines
from orchestrator.cluster.resources import Request, Resources
from orchestrator.datasets.ingest import ingest
from orchestrator.execution import worker
from orchestrator.execution.context import RunContext
from orchestrator.planning.campaign_plan import CampaignPlan, make_plan
from orchestrator.planning.planner import Planner
from orchestrator.records import layout
from orchestrator.records.repository import Repository
from orchestrator.store.base import Store
from orchestrator.store.retries import Retries
from tests.support.workers_here import replace_workers
from training.data.digits import Digits
from training.runtime import Runtime

CHAINS = 30
AT_ONCE = 3  # trials of a driver
LOST = 0.2  # of the times that workers are asked for
RESOURCES = Resources(
    workers=1, cpus_per_worker=1, gpus_per_worker=0, loader_workers=0, checkpoint_every=60
)
QUICK = Retries(lease_poll_seconds=0.02, scheduler_look_seconds=0.1, restarts=20)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Return a slow store with a dataset, and replace Ray and the training."""
    monkeypatch.setenv("STEPCHAIN_CACHE", str(tmp_path / "cache"))
    store = stand_in.SlowStore(tmp_path / "store", pause=0.001)
    ingest(Digits(seed=1, train=100, val=10), store, "digits")
    monkeypatch.setattr(worker, "fit", stand_in.fit_instead)
    monkeypatch.setattr(worker, "score", stand_in.score_instead)
    monkeypatch.setattr("orchestrator.campaigns.run.connect", lambda: None)
    machines = Machines(({"CPU": AT_ONCE},))
    monkeypatch.setattr("orchestrator.campaigns.run.machines", lambda: machines)
    monkeypatch.setattr(RunContext, "resources", lambda self, *_: RESOURCES)
    return store


def lose_some(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Lose workers at random, before or after their work; return how often either happened."""
    draw = random.Random(0)
    lock = threading.Lock()
    seen: Counter[str] = Counter()

    def run(work: Callable[[Runtime], Any], *_: object) -> Any:
        with lock:
            fate = draw.random()
            happens = "lost" if fate < LOST else "done"
            seen[happens] += 1
        result = work(Runtime()) if fate > LOST / 2 else None
        if happens == "lost":
            raise workers.WorkersFailed("the workers were lost", None, "")
        return result

    replace_workers(monkeypatch, run)
    return seen


def run_on_threads(scheduler: Any, work: Any, spec: Callable[[str], Any], **_: object) -> None:
    """Do what `ray_tune.run` does, on threads."""
    told: SimpleQueue[tuple[str, Any]] = SimpleQueue()
    with ThreadPoolExecutor(2 * AT_ONCE) as threads:

        def begin(id: str) -> Future[None]:
            trial = threads.submit(work, spec(id), lambda message: told.put((id, message)))
            trial.add_done_callback(lambda done: told.put((id, done)))
            return trial

        while not scheduler.finished:
            while (id := scheduler.next()) is not None:
                begin(id)
            try:
                id, message = told.get(timeout=0.02)
            except Empty:
                continue
            if isinstance(message, Future):
                message.result()
                scheduler.on_end(id)
            else:
                scheduler.on_message(id, message)


def drive(plan: CampaignPlan, store: Store, name: str) -> CampaignOutcome:
    console = Console(quiet=True)
    context = RunContext(store, plan.request, console, owner=name, retries=QUICK)
    return run_campaign(
        "cells", plan.tree, plan.stored, context, plan.costs, run_trials=run_on_threads
    )


def plan_cells(store: Store, chains: int) -> CampaignPlan:
    return make_plan(cells(chains), Planner(store), request=Request(cpus_per_worker=1))


def test_every_step_is_published_by_one_attempt(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = lose_some(monkeypatch)
    plans = [plan_cells(store, CHAINS) for _ in range(2)]
    with ThreadPoolExecutor(2) as drivers:
        outcomes = list(drivers.map(drive, plans, [store] * 2, ["ada", "bob"]))
    assert all(outcome.complete for outcome in outcomes)
    assert len(Repository(store).chains()) == CHAINS
    attempts: defaultdict[str, set[str]] = defaultdict(set)
    for name in store.list(layout.STEPS):
        if name.endswith(f"/files/{layout.MODEL_FILE}"):
            attempts[layout.step_of(name)].add(layout.attempt_of(name))
    assert len(attempts) == CHAINS + SEEDS
    assert {len(each) for each in attempts.values()} == {1}, "a step was trained twice"
    # Each step was done once. Workers that were lost after their work did it again.
    assert seen["done"] == CHAINS + SEEDS
    assert seen["lost"] > 0


def test_a_step_sends_a_known_number_of_requests(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_workers(monkeypatch, lambda work, *_: work(Runtime()))
    plan = plan_cells(store, SEEDS)
    with counted(stand_in.SlowStore) as first:
        assert drive(plan, store, "ada").complete
    steps, chains = 2 * SEEDS, SEEDS
    # The lease; the request; progress at each of four stages and at the end; a piece of the curves;
    # the list of the trained files, the counts, the evaluation, the record.
    assert first["write"] == 12 * steps + chains
    assert first["list"] == 3 * steps  # attempts: to go on from, to count, to clear of checkpoints
    assert first["upload"] == 2 * steps
    assert first["delete"] == 2 * steps  # of that list and of the lease
    assert first["exists"] == 0
