"""Test searched campaigns on a scripted worker: one list of samples, and no step twice."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from io import StringIO
from operator import attrgetter
from pathlib import Path
from shutil import copytree
from statistics import fmean
from typing import Any

import pytest
from ray import tune
from ray.tune.search import Searcher
from rich.console import Console

from orchestrator.campaigns.growth import Growth
from orchestrator.campaigns.limits import Limits
from orchestrator.campaigns.outcome import CampaignOutcome
from orchestrator.campaigns.run import run_campaign
from orchestrator.cluster.packing import Machines
from orchestrator.cluster.resources import Resources
from orchestrator.cluster.tune_searchers import PastSample
from orchestrator.execution.context import RunContext
from orchestrator.execution.messages import AttemptStarted, StepPublished, TrialFailed
from orchestrator.execution.scoreboard import Scoreboard
from orchestrator.planning.campaign import Campaign, searched, sweep
from orchestrator.planning.campaign_plan import make_plan, plan_document
from orchestrator.planning.campaign_record import publish_campaign
from orchestrator.planning.planner import Planner
from orchestrator.planning.search import SampleRecord, Search, recorded_samples
from orchestrator.records import layout
from orchestrator.records.repository import Repository
from orchestrator.report.campaign_results import load_campaign_results, recorded_results
from orchestrator.report.campaign_tables import scores_table
from orchestrator.store.base import Store
from orchestrator.store.lease import Lease
from orchestrator.store.open import open_store
from orchestrator.tracking.campaign_runs import campaign_runs
from stepchain.presets import digits_wilson
from tests.support.campaigns import publish_digits, publish_made_up_step
from training.config import InputError
from training.metrics import wilson

SPACES = {"method.alpha": tune.uniform(0, 1), "method.prior": tune.choice(("bce", "fixed"))}
SEEDS = (1, 2)


def search(samples: int = 5, by: Any = "optuna", **axes: Any) -> Search:
    axes = axes or SPACES
    return sweep(digits_wilson(), axes | {"seed": SEEDS}, samples=samples, search=by)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    publish_digits(folder)
    return folder / "store"


@pytest.fixture
def store(tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("STEPCHAIN_CACHE", str(tmp_path / "cache"))
    resources = Resources(
        workers=1, cpus_per_worker=1, gpus_per_worker=0, loader_workers=0, checkpoint_every=1e9
    )
    monkeypatch.setattr(RunContext, "resources", lambda self, *_: resources)
    many = Machines(({"CPU": 8.0},))
    monkeypatch.setattr("orchestrator.campaigns.run.machines", lambda: many)
    monkeypatch.setattr("orchestrator.campaigns.run.connect", lambda: None)
    copytree(digits, tmp_path / "store")
    return open_store(str(tmp_path / "store"))


class Cluster:
    """Replaces Ray. Its worker takes a lease and publishes a step whose scores depend on alpha."""

    def __init__(self) -> None:
        self.trained: list[str] = []
        self.before: Callable[[str], None] = lambda id: None  # called before each trial
        self.at_start = threading.Barrier(1)  # where it waits before the first one
        self.takes = 0  # which of its running trials it works on: 0 the oldest, -1 the newest

    def run(self, scheduler: Any, work: Any, spec_of: Any, **_: object) -> None:
        running: list[str] = []
        self.at_start.wait(60)
        while not scheduler.finished:
            while (id := scheduler.next()) is not None:
                running.append(id)
            if not running:
                assert scheduler.finished, "the scheduler has more to do, and names nothing"
                return
            id = running.pop(self.takes)
            try:
                self.before(id)
                scheduler.on_message(id, self._train(id, spec_of(id), scheduler))
            except FloatingPointError as error:
                scheduler.on_message(id, TrialFailed(str(error)))
            scheduler.on_end(id)

    def _train(self, id: str, spec: Any, scheduler: Any) -> StepPublished:
        lease = Lease(spec.store, layout.step_lease(id), f"{spec.owner} {threading.get_ident()}")
        while not lease.acquire():
            time.sleep(0.01)
        record = Repository(spec.store).find_step(id)
        if record is None:
            scheduler.on_message(id, AttemptStarted("a1"))
            self.trained.append(id)
            time.sleep(0.02)
            record, _ = publish_made_up_step(spec.store, spec.plan, spec.planned)
        lease.release()
        return StepPublished(record.attempt)


def campaign(
    store: Store, asked: Search, cluster: Cluster, at_once: int = 2, **limits: Any
) -> tuple[CampaignOutcome, str]:
    console = Console(file=StringIO(), width=200)
    found = searched(Campaign("searched", "Which?", (), search=asked), store)
    plan = make_plan(found, Planner(store))
    assert found.search
    outcome = run_campaign(
        "searched",
        plan.tree,
        plan.stored,
        RunContext(store, console=console),
        plan.costs,
        Limits(max_concurrent=at_once, retries=0, **limits),
        run_trials=cluster.run,
        growth=None if found.search.complete else partial(Growth, found.search, plan.planner),
    )
    assert isinstance(console.file, StringIO)
    return outcome, console.file.getvalue()


def samples(store: Store, asked: Search) -> list[SampleRecord]:
    planned = searched(Campaign("searched", "Which?", (), search=asked), store)
    assert planned.search
    return recorded_samples(store, planned.search.key)


def test_a_search_trains_each_sample_and_shares_step_0(store: Store):
    cluster = Cluster()
    outcome, _ = campaign(store, search(), cluster)
    assert outcome.complete
    found = samples(store, search())
    assert [record.number for record in found] == [0, 1, 2, 3, 4]
    assert len(outcome.chains) == 2 * 5
    assert len(cluster.trained) == len(set(cluster.trained)) == 2 + 2 * 5
    assert "alpha=" in outcome.chains[-1].name
    assert len(list(store.list("chains/"))) == 10
    _check_that_suggestions_follow_from_the_list(store, found)
    _check_the_records_table(store)


def test_a_searcher_is_asked_as_late_as_possible(store: Store):
    """While step 0 is trained, nothing that a sample could use is free."""
    cluster = Cluster()
    cluster.before = lambda id: seen.append(len(list(store.list("searches/"))))
    seen: list[int] = []
    campaign(store, search(4), cluster, at_once=4)
    assert seen[0] == 1
    assert seen[-1] == 4
    # With one step at a time, each searcher knows all scores.
    alone = search(3, **{"method.alpha": tune.uniform(0.2, 0.9)})
    campaign(store, alone, Cluster(), at_once=1)
    assert [record.scored for record in samples(store, alone)] == [(), (0,), (0, 1)]


def test_a_search_that_is_killed_continues_its_list(store: Store):
    killed, resumed = Cluster(), Cluster()

    def kill(id: str) -> None:
        if len(killed.trained) == 6:
            raise KeyboardInterrupt

    killed.before = kill
    with pytest.raises(KeyboardInterrupt):
        campaign(store, search(), killed)
    first = samples(store, search())
    assert 2 <= len(first) < 5
    outcome, _ = campaign(store, search(), resumed)
    assert outcome.complete
    assert samples(store, search())[: len(first)] == first
    assert len(samples(store, search())) == 5
    assert set(Counter(killed.trained + resumed.trained).values()) == {1}


def test_more_samples_continue_the_list(store: Store):
    cluster = Cluster()
    campaign(store, search(3), cluster)
    few = samples(store, search())
    outcome, _ = campaign(store, search(5), cluster)
    assert samples(store, search())[:3] == few
    assert len(outcome.chains) == 10
    assert set(Counter(cluster.trained).values()) == {1}
    before = list(cluster.trained)
    outcome, _ = campaign(store, search(5), cluster)
    assert outcome.complete
    assert cluster.trained == before


def test_two_drivers_share_one_list(store: Store):
    clusters = [Cluster(), Cluster()]
    both_began = threading.Barrier(2)
    for each in clusters:
        each.at_start = both_began
    clusters[1].takes = -1
    outcomes: list[CampaignOutcome] = []
    drivers = [
        threading.Thread(
            target=lambda each=each: outcomes.append(campaign(store, search(5), each)[0])
        )
        for each in clusters
    ]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join(120)
    assert [outcome.complete for outcome in outcomes] == [True, True]
    assert len(samples(store, search(5))) == 5
    one, other = (sorted(map(attrgetter("name"), outcome.chains)) for outcome in outcomes)
    assert one == other
    assert len(one) == 10
    trained = Counter(clusters[0].trained + clusters[1].trained)
    assert len(trained) == 2 + 10
    assert set(trained.values()) == {1}
    assert all(cluster.trained for cluster in clusters), "one driver did everything"


def _check_that_suggestions_follow_from_the_list(
    store: Store, found: Sequence[SampleRecord]
) -> None:
    """Check that the searcher names each sample again, given those before it and their scores."""
    scores = [_score(store, record) for record in found]
    for record in found:
        past = [
            PastSample(earlier.values, "scored", (scores[earlier.number],))
            if earlier.number in record.scored
            else PastSample(earlier.values, "running")
            for earlier in found[: record.number]
        ]
        assert search().name_next(past) == record.values


def _check_the_records_table(store: Store) -> None:
    """Check that the campaign's record stays the same, and its table names the best sample."""
    loaded = Campaign("searched", "Which?", (), search=search())
    record = publish_campaign(store, searched(loaded, store))
    longer = Campaign("searched", "Which?", (), search=search(9))
    assert publish_campaign(store, searched(longer, store)) == record
    result = recorded_results(record, Repository(store), wilson())
    assert len(result.variants) == 5
    means = {each.name: each.means.all.mean for each in result.variants if each.means.all}
    best = max(means, key=lambda name: means[name])
    caption = scores_table(result).caption
    assert "Samples named by optuna over method.alpha: 0 to 1; method.prior: bce or" in caption
    assert f"Best of 5 by mean mIoU over its seeds: {best}, {100 * means[best]:.1f}." in caption
    assert "no last score" not in caption
    run, *_ = campaign_runs(record, result)
    assert run.tags["stepchain.best"] == best
    history = [point.value for point in run.points if point.name == "search/all"]
    assert history == [means[each.name] for each in result.variants]
    assert "chains" not in run.params, "MLflow does not let a parameter change"


def _score(store: Store, record: SampleRecord) -> float:
    """Return the mean mIoU of a sample over its seeds, as a run computes it."""
    board = Scoreboard(Repository(store), wilson())
    plans = [Planner(store).plan(chain) for chain in search().chains(record.values)]
    return fmean(board.find(plan, plan.steps[-1].key).scores.miou_all or 0 for plan in plans)


def test_a_failed_sample_has_no_score_and_the_search_goes_on(store: Store):
    cluster = Cluster()
    failing: list[str] = []

    def fail(id: str) -> None:
        if len(cluster.trained) == 2 and not failing:
            failing.append(id)
        if id in failing:
            raise FloatingPointError("the loss is not finite")

    cluster.before = fail
    outcome, _ = campaign(store, search(4), cluster)
    assert Counter(chain.state for chain in outcome.chains) == {"published": 7, "failed": 1}
    found = searched(Campaign("searched", "Which?", (), search=search(4)), store)
    tree = make_plan(found, Planner(store)).tree
    result = load_campaign_results(found, tree, Repository(store), wilson())
    assert "1 of 8 chains have no last score and count in no mean" in scores_table(result).caption
    assert all(0 not in record.scored for record in samples(store, search()))


def test_a_search_ends_when_its_step_0_fails(store: Store):
    cluster = Cluster()

    def fail(id: str) -> None:
        raise FloatingPointError("the loss is not finite")

    cluster.before = fail
    outcome, _ = campaign(store, search(), cluster)
    assert [chain.state for chain in outcome.chains] == ["failed", "failed"]
    assert len(samples(store, search())) == 1


def test_a_sample_that_is_named_again_costs_nothing(store: Store):
    class Stubborn(Searcher):
        def __init__(self, points: Sequence[dict[str, Any]]) -> None:
            super().__init__()
            self.points = list(points)

        def set_search_properties(self, metric: Any, mode: Any, config: Any, **_: Any) -> bool:
            return True

        def suggest(self, trial_id: str) -> dict[str, Any]:
            return self.points.pop(0) if self.points else {"method.alpha": 0.123456}

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            pass

    asked = search(3, lambda points, seed: Stubborn(points), **{"method.alpha": tune.uniform(0, 1)})
    cluster = Cluster()
    outcome, _ = campaign(store, asked, cluster)
    assert [record.values for record in samples(store, asked)] == [{"method.alpha": 0.1235}] * 3
    assert len(outcome.chains) == 2
    assert len(cluster.trained) == 4


def test_a_searcher_may_wait_or_have_enough(store: Store):
    class Three(Searcher):
        def __init__(self, points: list[dict[str, Any]]) -> None:
            super().__init__()
            self.points, self.open = points, 0

        def set_search_properties(self, metric: Any, mode: Any, config: Any, **_: Any) -> bool:
            return True

        def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # pyright: ignore[reportIncompatibleMethodOverride]
            if trial_id != "next":
                self.open += 1
                return self.points[int(trial_id)]
            if len(self.points) == 3:
                return Searcher.FINISHED
            # One at a time, as under a ConcurrencyLimiter.
            return None if self.open else {"method.alpha": len(self.points) / 4}

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            self.open -= 1

    asked = search(9, lambda points, seed: Three(points), **{"method.alpha": tune.uniform(0, 1)})
    outcome, _ = campaign(store, asked, Cluster(), at_once=4)
    assert outcome.complete
    assert [record.scored for record in samples(store, asked)] == [(), (0,), (0, 1)]


def test_a_plan_shows_the_first_sample_and_what_the_others_cost(store: Store):
    found = searched(Campaign("searched", "Which?", (), search=search(9)), store)
    document = plan_document(make_plan(found, Planner(store), images_per_second=10))
    assert not list(store.list("searches/")), "a plan writes nothing"
    assert document["search"]["samples"] == 9
    assert document["search"]["known"] == 1
    assert document["search"]["shared_steps"] == 1
    own = [step for step in document["steps"] if step["index"] == 1]
    assert document["search"]["images"] == 8 * sum(step["images"] for step in own)
    assert document["search"]["gpu_hours"] == pytest.approx(8 * sum(s["gpu_hours"] for s in own))
    assert document["search"]["bounds"] == {
        "method.alpha": "0 to 1",
        "method.prior": "bce or fixed",
    }
    with pytest.raises(InputError, match="leave out --only and --until-step"):
        make_plan(found, Planner(store), patterns=("alpha*",))


@pytest.mark.parametrize(
    ("axes", "by", "message"),
    [
        ({"method.alpha": (0, 1)}, "optuna", "'method.alpha' has no space"),
        ({"method.alpha": tune.uniform(0, 5)}, "optuna", "method.alpha cannot be 5"),
        ({"method.alpha": tune.randn(0, 1)}, "optuna", "needs bounds"),
        ({"method.alpha": tune.uniform(0, 1)}, "optima", "no searcher 'optima'"),
    ],
)
def test_a_mistake_gets_one_sentence(axes: dict[str, Any], by: Any, message: str):
    with pytest.raises(InputError, match=message):
        search(by=by, **axes)


def test_a_searcher_that_fails_is_named(store: Store):
    def broken(points: list[dict[str, Any]], seed: int) -> Searcher:
        raise RuntimeError("no licence")

    with pytest.raises(InputError, match=r"the searcher '.*broken': RuntimeError: no licence"):
        campaign(store, search(by=broken), Cluster())
