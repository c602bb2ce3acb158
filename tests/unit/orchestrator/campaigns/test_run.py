"""Test whole campaigns with trials in this process: steps, outcomes, counts and messages."""

import time
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator.campaigns.limits import Limits
from orchestrator.campaigns.outcome import CampaignOutcome, outcome_tables
from orchestrator.campaigns.run import run_campaign
from orchestrator.cluster import workers
from orchestrator.cluster.packing import Machines
from orchestrator.cluster.resources import Request, Resources
from orchestrator.datasets.catalog import publish
from orchestrator.execution.context import RunContext
from orchestrator.execution.messages import AttemptStarted, StepPublished, WaitingForLease
from orchestrator.planning.campaign import Campaign
from orchestrator.planning.chain import Base, Chain
from orchestrator.planning.cost import Costs
from orchestrator.planning.planner import Planner
from orchestrator.planning.step_tree import StepTree, build_tree, first_steps
from orchestrator.planning.store_state import look_up_steps
from orchestrator.records import layout
from orchestrator.records.attempts import newest_checkpoint
from orchestrator.records.repository import Repository
from orchestrator.records.schema import ChainRecord, StepRecord
from orchestrator.report.campaign_results import CampaignResult, load_campaign_results
from orchestrator.report.campaign_tables import scores_table
from orchestrator.store.base import Store, StoreError
from orchestrator.store.lease import Lease
from orchestrator.store.open import open_store
from orchestrator.store.retries import Retries
from tests.support.datasets import build_dataset
from tests.support.stored_steps import read_step_records
from tests.support.workers_here import replace_workers
from training import metrics
from training.config import Augmentation, EvaluationConfig, InputError, ModelConfig, Optimization
from training.data.digits import Digits
from training.data.manifest import Manifest
from training.methods import fine_tuning, wilson
from training.runtime import Runtime
from training.scenario import Scenario

FEW = Optimization(epochs=1, batch=4, encoder_lr=0.02, head_lr=0.02)
START = Chain(
    name="start",
    scenario=Scenario(dataset="digits", groups=(("0", "1", "2"), ("3", "4"), ("5", "6"))),
    base=Base(method=fine_tuning.Config(loss="bce"), optimization=FEW),
    method=wilson.Config(warmup_epochs=0, localizer_channels=4),
    optimization=FEW,
    model=ModelConfig(encoder="tiny", output_stride=4, head_channels=4, eval_pooling=8),
    augmentation=Augmentation(crop=32),
    evaluation=EvaluationConfig(short_side=32, crop=32),
)


def chain(name: str, **method: Any) -> Chain:
    return START.model_copy(update={"name": name, "method": START.method.model_copy(update=method)})


QUICK = Retries(lease_seconds=0.1, lease_poll_seconds=0.01)
GIVEN = RunContext.resources  # before a test replaces it
# The chains have 1 + 3 * 2 steps.
CHAINS = (chain("half", alpha=0.5), chain("one", alpha=1.0), chain("none", alpha=0.0))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("digits")
    return folder, build_dataset(Digits(seed=3, train=24, val=6), folder)[0]


@pytest.fixture
def store(tmp_path: Path, built: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("STEPCHAIN_CACHE", str(tmp_path / "cache"))
    store = open_store(str(tmp_path / "store"))
    publish(store, "digits", *built)
    return store


class Cluster:
    """Replaces Ray: trials run here, one at a time in the scheduler's order."""

    def __init__(self) -> None:
        self.order: list[str] = []  # of the trials
        self.fits = 0
        self.machines = Machines(({"CPU": 1.0},))
        self.given: list[Resources] = []  # to the workers of each run
        self.before: Callable[[str], None] = lambda id: None  # called before each trial
        self.lost: dict[str, int] = {}  # how often trials lose their process from now on

    def workers(
        self, work: Callable[[Runtime], Any], resources: Resources, *_: object, **__: object
    ) -> Any:
        self.fits += 1
        self.given.append(resources)
        try:
            return work(Runtime(log_every=2, checkpoint_every=1e9))
        except FloatingPointError as error:
            raise workers.WorkersFailed(str(error), error, "traceback") from error

    def tune(self, scheduler: Any, work: Any, spec_of: Any, losses: int, **_: object) -> None:
        running: list[str] = []
        while not scheduler.finished:
            while (id := scheduler.next()) is not None:
                running.append(id)
            if not running:
                continue
            id = running.pop(0)
            self.order.append(id)
            self.before(id)
            while self.lost.get(id, 0) and losses + 1:
                self.lost[id] -= 1
                losses -= 1
            if losses + 1:
                work(spec_of(id), lambda message, id=id: scheduler.on_message(id, message))
            scheduler.on_end(id, lost=None if losses + 1 else "the machine was short of memory")
        # Tune asks for another trial after the last one.
        assert scheduler.next() is None


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster()
    replace_workers(monkeypatch, cluster.workers)
    resources = Resources(
        workers=1, cpus_per_worker=1, gpus_per_worker=0, loader_workers=0, checkpoint_every=1e9
    )
    monkeypatch.setattr(RunContext, "resources", lambda self, *_: resources)
    for name, value in {
        "connect": lambda: None,
        "machines": lambda: cluster.machines,
    }.items():
        monkeypatch.setattr(f"orchestrator.campaigns.run.{name}", value)
    return cluster


def tree(store: Store, *chains: Chain) -> StepTree:
    planner = Planner(store)
    return build_tree([planner.plan(each) for each in chains or CHAINS])


def campaign(
    store: Store,
    cluster: Cluster,
    step_tree: StepTree | None = None,
    limits: Limits | None = None,
    **options: Any,
) -> tuple[CampaignOutcome, str]:
    console = Console(file=StringIO(), width=200)
    retries = options.pop("retries", QUICK)
    tracker = options.pop("tracker", None)
    request = options.pop("request", Request())
    context = RunContext(store, request, console, tracker, retries=retries)
    step_tree = step_tree or tree(store)
    costs = options.pop("costs", Costs(speeds={}, guess=100.0))
    outcome = run_campaign(
        "test",
        step_tree,
        look_up_steps(step_tree, store),
        context,
        costs,
        limits or Limits(retries=0),
        run_trials=cluster.tune,
        **options,
    )
    for table in outcome_tables(outcome):
        console.print(table)
    assert isinstance(console.file, StringIO)
    return outcome, console.file.getvalue()


def states(outcome: CampaignOutcome) -> list[str]:
    return sorted(step.state for step in outcome.steps.values())


def records(store: Store) -> dict[str, ChainRecord]:
    found = [ChainRecord.model_validate_json(store.read(name)) for name in store.list("chains/")]
    return {record.chain["name"]: record for record in found}


def test_what_chains_share_is_trained_once_and_again_not_at_all(store: Store, cluster: Cluster):
    outcome, output = campaign(store, cluster)
    assert cluster.fits == len(outcome.steps) == 7
    assert outcome.complete
    assert [each.name for each in outcome.chains] == ["half", "one", "none"]
    assert all(each.state == "published" and each.scores for each in outcome.chains)
    assert set(records(store)) == {"half", "one", "none"}
    assert "7 of 7 steps" in output
    assert "half: finished, mIoU old" in output
    again, _ = campaign(store, cluster)
    assert cluster.fits == 7
    assert states(again) == ["reused"] * 7
    assert again.complete
    assert len(list(store.list("chains/"))) == 3


def test_a_failing_step_fails_its_subtree_and_no_other(store: Store, cluster: Cluster):
    wild = Optimization(epochs=2, batch=4, encoder_lr=1e30, head_lr=1e30)
    chains = (CHAINS[0], chain("wild").model_copy(update={"optimization": wild}), CHAINS[1])
    outcome, output = campaign(store, cluster, tree(store, *chains))
    assert states(outcome) == ["failed", "not run", *["published"] * 5]
    assert not outcome.complete
    half, bad, one = outcome.chains
    assert (half.state, bad.state, one.state) == ("published", "failed", "published")
    assert "lower the learning rates" in bad.reason
    assert "lower the learning rates" in output
    (below,) = (step for step in outcome.steps.values() if step.state == "not run")
    assert "step 1" in below.reason
    assert "failed" in below.reason
    assert set(records(store)) == {"half", "one"}


def test_a_step_that_fails_is_tried_again_as_often_as_asked(
    store: Store, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
):
    def failing(work: Any, *_: object) -> Any:
        cluster.fits += 1
        if cluster.fits == 1:
            raise workers.WorkersFailed("no", ValueError("no"), "traceback")
        return work(Runtime(log_every=2, checkpoint_every=1e9))

    replace_workers(monkeypatch, failing)
    step_tree = tree(store, CHAINS[0])
    assert states(campaign(store, cluster, step_tree)[0]) == ["failed", "not run", "not run"]
    cluster.fits = 0
    outcome, output = campaign(store, cluster, step_tree, Limits(retries=1))
    assert outcome.complete
    assert cluster.fits == 4
    assert "is tried again, 1 times at most: step 0" in output


def test_a_lost_trial_is_a_failure_when_it_is_lost_too_often(store: Store, cluster: Cluster):
    step_tree = tree(store, CHAINS[0])
    cluster.lost = {next(iter(step_tree.nodes)): 2}
    outcome, _ = campaign(store, cluster, step_tree, Limits(retries=1))
    assert "lost 2 times: the machine was short of memory" in outcome.chains[0].reason


def test_what_others_publish_meanwhile_is_reused(store: Store, cluster: Cluster):
    """Another campaign publishes a branch while this one trains the base."""
    step_tree = tree(store)
    other = Cluster()
    second = step_tree.chains[1].steps

    def elsewhere(id: str) -> None:
        if id == second[0].key:
            cluster.before = lambda id: None
            campaign(store, other, tree(store, CHAINS[1]))

    cluster.before = elsewhere
    outcome, _ = campaign(store, cluster, step_tree)
    assert [outcome.steps[step.key].state for step in second] == ["reused"] * 3
    assert cluster.fits == 7  # both clusters' workers are counted here
    assert outcome.complete
    assert set(cluster.order).isdisjoint(step.key for step in second[1:]), (
        "a trial was started for what was published"
    )


def test_steps_that_others_are_at_come_last(store: Store, cluster: Cluster):
    step_tree = tree(store)
    leased = step_tree.chains[0].steps[1].key
    lease = Lease(store, layout.step_lease(leased), "ada@node", period=60)

    def take(id: str) -> None:
        if id == step_tree.chains[0].steps[0].key:
            assert lease.acquire()
        if id == leased:
            lease.release()

    cluster.before = take
    campaign(store, cluster, step_tree)
    assert cluster.order.index(leased) >= 3  # after both other branches


def test_each_kind_of_work_gets_what_it_is_given(
    store: Store, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(RunContext, "resources", GIVEN)
    monkeypatch.setattr("orchestrator.execution.context.machines", lambda: cluster.machines)
    cluster.machines = Machines(({"CPU": 4.0, "GPU": 1.0, "memory": 8e9},))
    request = Request(
        gpus_per_worker=0,
        give=("base:cpus=3", "increment:cpus=1,gpus=0.25,memory=2", "evaluation:cpus=2"),
    )
    outcome, _ = campaign(store, cluster, request=request)
    assert outcome.complete
    cpus = [each.cpus_per_worker for each in cluster.given]
    assert cpus == [3, *[1] * (len(cpus) - 1)]
    records = read_step_records(store)
    assert [each.resources["gpus_per_worker"] for each in records] == [0, *[0.25] * 6]
    assert len({each.key for each in records}) == 7
    # Keys do not depend on it, so another request finds every step published.
    again, _ = campaign(store, cluster)
    assert set(states(again)) == {"reused"}
    other = CHAINS[0].model_copy(
        update={"evaluation": CHAINS[0].evaluation.model_copy(update={"short_side": 40})}
    )
    campaign(store, cluster, tree(store, other), request=request)
    assert [each.cpus_per_worker for each in cluster.given[len(cpus) :]] == [2] * 3


@pytest.mark.parametrize("back", [True, False])
def test_a_campaign_waits_for_a_machine_that_left(
    store: Store, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, back: bool
):
    whole, looks = cluster.machines, []

    def look() -> Machines:
        looks.append(1)
        if cluster.order and (len(looks) < 40 or not back):
            return Machines(())
        return whole

    quick = replace(QUICK, scheduler_look_seconds=0, room_seconds=1e9 if back else 0.05)
    monkeypatch.setattr("orchestrator.campaigns.run.machines", look)
    outcome, output = campaign(store, cluster, retries=quick)
    assert output.count("no machine of the cluster has room for increment steps") >= 1
    if back:
        assert outcome.complete
        assert "a machine is back: the campaign goes on" in output
    else:
        assert "failed" in states(outcome)
        assert "published" in states(outcome)
        assert "and none came back in" in output


def test_a_budget_leaves_out_what_does_not_fit(store: Store, cluster: Cluster):
    costs = Costs(guess=1.0)  # a step takes seconds by the guess, and next to nothing in truth
    base = costs.seconds(tree(store).chains[0].steps[0])
    assert base
    outcome, output = campaign(
        store,
        cluster,
        costs=costs,
        limits=Limits(max_gpu_hours=1.01 * costs.gpu_hours(base), retries=0),
    )
    assert "published" in states(outcome)
    outcome, output = campaign(
        store,
        cluster,
        tree(store, chain("other", alpha=0.3)),
        costs=Costs(guess=0.01),
        limits=Limits(max_gpu_hours=0.001),
    )
    assert states(outcome) == ["not run", "not run", "reused"]
    assert "budget of 0.001 GPU-hours" in output
    assert not outcome.complete


def score_after_step_1(
    monkeypatch: pytest.MonkeyPatch, step_tree: StepTree, *scores: float
) -> None:
    """Let the chains have these scores after step 1, and no others."""
    found = {plan.steps[1].key: score for plan, score in zip(step_tree.chains, scores, strict=True)}
    monkeypatch.setattr("orchestrator.campaigns.run._miou", lambda board, plan, key: found.get(key))


def test_a_chain_far_behind_is_stopped_when_asked_to(
    store: Store, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
):
    step_tree = tree(store)
    score_after_step_1(monkeypatch, step_tree, 0.5, 0.3, 0.45)
    outcome, output = campaign(store, cluster, step_tree, Limits(stop_behind=0.1, retries=0))
    assert [each.state for each in outcome.chains] == ["published", "stopped", "published"]
    assert outcome.steps[step_tree.chains[1].steps[1].key].state == "published"
    assert "20.0 points of mIoU behind 'half' after step 1" in output


def test_successive_halving_continues_the_best_share_of_the_chains(
    store: Store, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
):
    step_tree = tree(store)
    score_after_step_1(monkeypatch, step_tree, 0.5, 0.3, 0.6)
    outcome, output = campaign(store, cluster, step_tree, Limits(asha=2, retries=0))
    # The first score is the best so far, 0.3 is below that, and 0.6 above the median of both.
    assert [each.state for each in outcome.chains] == ["published", "stopped", "published"]
    assert "not among the best 1 in 2 chains that came as far (30.0 mIoU after step 1)" in output
    assert outcome.complete  # what was asked for is done
    again, _ = campaign(store, cluster, step_tree, Limits(asha=2, retries=0))
    assert [each.state for each in again.chains] == ["reused", "stopped", "reused"]
    asked = Campaign("test", "Is it stopped?", tuple(plan.chain for plan in step_tree.chains))

    def result() -> CampaignResult:
        return load_campaign_results(asked, step_tree, Repository(store), metrics.wilson())

    monkeypatch.undo()
    found = result()
    assert found.complete
    assert [variant.stopped for variant in found.variants] == [0, 1, 0]
    caption = scores_table(found).caption
    assert "1 of 3 chains have no last score" in caption
    assert "(stopped by --asha 2: 1). A stopped chain might have caught up" in caption


def test_without_the_rule_a_stopped_chain_is_continued(
    store: Store, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
):
    step_tree = tree(store)
    score_after_step_1(monkeypatch, step_tree, 0.5, 0.3, 0.6)
    stopped, _ = campaign(store, cluster, step_tree, Limits(asha=2, retries=0))
    assert stopped.chains[1].state == "stopped"
    whole, _ = campaign(store, cluster, step_tree)
    assert [each.state for each in whole.chains] == ["reused", "published", "reused"]


def test_a_score_that_cannot_be_read_stops_no_chain(
    store: Store, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
):
    step_tree = tree(store)
    unread = step_tree.chains[1].steps[1].key

    def score(board: object, plan: object, key: str) -> float:
        if key == unread:
            raise StoreError("the server does not answer")
        return 0.5

    monkeypatch.setattr("orchestrator.campaigns.run._miou", score)
    outcome, output = campaign(store, cluster, step_tree, Limits(stop_behind=0.1, retries=0))
    assert outcome.complete
    assert "stops no chain: the server does not answer" in output


class Quiet:
    """A tracker that shows nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def test_what_is_reported_at_a_later_try_is_printed_once(
    store: Store, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
):
    step_tree = tree(store, CHAINS[0])
    first = step_tree.chains[0].steps[0].key
    tries: list[str] = []
    read = Repository.curves

    def curves(self: Repository, record: StepRecord) -> list[dict[str, Any]]:
        tries.append(record.key)
        if tries.count(first) < 3:
            raise StoreError("the server does not answer")
        return read(self, record)

    def wait(id: str) -> None:
        end = time.monotonic() + 60
        while id != first and tries.count(first) < 3:
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.01)

    monkeypatch.setattr(Repository, "curves", curves)
    cluster.before = wait
    quick = replace(QUICK, look_seconds_folder=0.01)
    outcome, output = campaign(store, cluster, step_tree, retries=quick, tracker=Quiet())
    assert outcome.complete
    assert output.count("1 of 3 steps") == 1


def test_the_first_steps_alone_publish_no_chain(store: Store, cluster: Cluster):
    planner = Planner(store)
    step_tree = build_tree([first_steps(planner.plan(each), 1) for each in CHAINS])
    outcome, _ = campaign(store, cluster, step_tree)
    assert outcome.complete
    assert cluster.fits == 4
    assert not records(store)


def interrupt(
    store: Store, step_tree: StepTree, trials: Callable[..., None], retries: Retries | None = None
) -> None:
    """Run a campaign whose trials are run by `trials`, which interrupts it."""
    with pytest.raises(KeyboardInterrupt):
        run_campaign(
            "test",
            step_tree,
            look_up_steps(step_tree, store),
            RunContext(store, console=Console(quiet=True), retries=retries or Retries()),
            Costs(),
            run_trials=trials,
        )


def test_an_interrupted_campaign_gives_back_its_leases_and_goes_on(store: Store, cluster: Cluster):
    step_tree = tree(store)
    owners: list[str] = []

    def interrupted(scheduler: Any, work: Any, spec_of: Any, **_: object) -> None:
        id = scheduler.next()
        owners.append(spec_of(id).owner)
        lease = Lease(store, layout.step_lease(id), spec_of(id).owner)
        assert lease.acquire()
        assert scheduler.idle  # it has not begun an attempt
        scheduler.on_message(id, AttemptStarted("a"))
        scheduler.stop()
        assert scheduler.next() is None
        assert not lease.is_mine()  # its workers see that, and keep a checkpoint
        assert not scheduler.idle
        assert not lease.acquire()  # as another trial tries
        scheduler.on_message(id, WaitingForLease("the campaign"))
        assert scheduler.idle
        scheduler.on_stopped()
        raise KeyboardInterrupt

    interrupt(store, step_tree, interrupted)
    assert "(test, " in owners[0]
    assert not store.exists(f"steps/{step_tree.chains[0].steps[0].key}/lease.json")
    outcome, _ = campaign(store, cluster, step_tree)
    assert outcome.complete


def test_trials_of_a_campaign_that_is_stopped_end_with_a_checkpoint(store: Store, cluster: Cluster):
    step_tree = tree(store)
    ended: list[str] = []

    def interrupted(scheduler: Any, work: Any, spec_of: Any, **_: object) -> None:
        id = scheduler.next()
        messages: list[object] = []

        def on_message(message: object) -> None:
            messages.append(message)
            scheduler.on_message(id, message)
            scheduler.stop()

        work(spec_of(id), on_message)
        assert [type(each) for each in messages] == [AttemptStarted]
        assert not scheduler.idle
        scheduler.on_end(id)
        assert scheduler.idle
        assert not scheduler.problems
        scheduler.on_stopped()
        ended.append(id)
        raise KeyboardInterrupt

    interrupt(store, step_tree, interrupted, replace(QUICK, lease_check_seconds=0.01))
    assert newest_checkpoint(store, ended[0])


def test_a_campaign_that_is_stopped_does_not_wait_for_what_begins_afterwards(
    store: Store, cluster: Cluster
):
    step_tree = tree(store)

    def interrupted(scheduler: Any, work: Any, spec_of: Any, **_: object) -> None:
        id = scheduler.next()
        scheduler.stop()
        scheduler.on_message(id, AttemptStarted("a"))
        assert scheduler.idle
        raise KeyboardInterrupt

    interrupt(store, step_tree, interrupted)


def test_a_trial_that_waits_for_room_begins_nothing_once_its_campaign_is_stopped(
    store: Store, cluster: Cluster
):
    step_tree = tree(store)

    def interrupted(scheduler: Any, work: Any, spec_of: Any, **_: object) -> None:
        id = scheduler.next()
        trial = Lease(store, layout.step_lease(id), spec_of(id).owner)
        assert trial.is_free()
        scheduler.stop()
        assert not trial.acquire()  # the trial, which has room now
        assert scheduler.idle
        scheduler.on_message(id, StepPublished("theirs"))  # another job trained it meanwhile
        scheduler.on_end(id)
        scheduler.on_stopped()
        assert trial.is_free()
        raise KeyboardInterrupt

    interrupt(store, step_tree, interrupted)


def test_leases_of_others_are_left_alone(store: Store, cluster: Cluster):
    step_tree = tree(store)
    other = Lease(store, layout.step_lease(step_tree.chains[0].steps[0].key), "ada@node")

    def interrupted(scheduler: Any, work: Any, spec_of: Any, **_: object) -> None:
        assert other.acquire()
        assert scheduler.next() == step_tree.chains[0].steps[0].key  # there is nothing else
        scheduler.stop()
        scheduler.on_stopped()
        raise KeyboardInterrupt

    interrupt(store, step_tree, interrupted)
    assert other.is_mine()


def test_a_damaged_parent_is_named(
    store: Store, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    planner = Planner(store)
    campaign(store, cluster, build_tree([first_steps(planner.plan(CHAINS[0]), 0)]))
    key = tree(store).chains[0].steps[0].key
    record = Repository(store).find_step(key)
    assert record
    damaged = f"steps/{key}/attempts/{record.attempt}/files/model.safetensors"
    path = store.local_path(damaged)
    assert path
    size = path.stat().st_size
    path.unlink()  # the cache holds a link to it
    store.write(damaged, bytes(size))
    monkeypatch.setenv("STEPCHAIN_CACHE", str(tmp_path / "another-cache"))
    outcome, _ = campaign(store, cluster, tree(store, CHAINS[0]))
    reason = outcome.chains[0].reason
    assert damaged in reason
    assert f"step 0 ({key}) is published, but a file of it is missing or damaged" in reason
    assert f"Delete steps/{key}/record.json" in reason


def test_workers_must_share_batches(store: Store, cluster: Cluster):
    with pytest.raises(InputError, match="3 workers cannot share a batch of 4"):
        campaign(store, cluster, request=Request(workers=3))
