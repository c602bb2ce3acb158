"""Steps are trained once, whatever interrupts them, races or breaks.

This process is the workers; Ray is in an integration test.
"""

import json
import pickle
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file

from orchestrator.cluster import workers
from orchestrator.cluster.resources import Request, Resources
from orchestrator.cluster.waiting import Waiting
from orchestrator.datasets.catalog import publish
from orchestrator.execution import store_journal, worker
from orchestrator.execution.attempt import Ready, produce_step
from orchestrator.execution.context import RunContext
from orchestrator.execution.ensure import ensure_chain, ensure_step
from orchestrator.execution.evaluate import ensure_evaluation
from orchestrator.execution.messages import AttemptStarted, Message, WaitingForWorkers
from orchestrator.planning.chain import Base, Chain
from orchestrator.planning.planner import plan_chain
from orchestrator.planning.resolver import PlanError
from orchestrator.records import layout
from orchestrator.records.attempts import (
    newest_checkpoint,
    upload_folder,
)
from orchestrator.records.keys import step_key
from orchestrator.records.repository import Repository
from orchestrator.records.schema import Scoring, StepFailed, StepHasNoRoom, StepRecord, StepRequest
from orchestrator.store.base import Store, StoreError
from orchestrator.store.lease import Lease, LeaseLost
from orchestrator.store.open import open_store
from orchestrator.store.retries import Retries
from tests.support.datasets import build_dataset
from tests.support.workers_here import replace_workers
from training.config import Augmentation, EvaluationConfig, InputError, ModelConfig, Optimization
from training.data import dataset
from training.data.digits import Digits
from training.data.manifest import Manifest
from training.methods import fine_tuning, wilson
from training.runtime import Runtime
from training.scenario import Scenario

QUICK = Retries(lease_seconds=0.1, lease_poll_seconds=0.01)
FEW = Optimization(epochs=4, batch=4, encoder_lr=0.02, head_lr=0.02)
ONE = Resources(
    workers=1, cpus_per_worker=1, gpus_per_worker=0, loader_workers=0, checkpoint_every=1e9
)
CHAIN = Chain(
    name="chain",
    scenario=Scenario(dataset="digits", groups=(("0", "1", "2", "3"), ("4", "5", "6"))),
    base=Base(method=fine_tuning.Config(loss="bce"), optimization=FEW),
    method=wilson.Config(warmup_epochs=1, localizer_channels=4),
    optimization=FEW,
    model=ModelConfig(encoder="tiny", output_stride=4, head_channels=4, eval_pooling=8),
    augmentation=Augmentation(crop=32),
    evaluation=EvaluationConfig(short_side=32, crop=32),
)


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


class InProcess:
    """Replaces workers.run: calls `before`, then runs the work in this process."""

    def __init__(self) -> None:
        self.runs = 0
        self.before: Callable[[int], object] = lambda number: None
        self.runtime = Runtime(log_every=2, checkpoint_every=1e9)

    def run(
        self,
        work: Callable[[Runtime], Any],
        resources: Resources,
        *_: object,
        **__: object,
    ) -> Any:
        self.runs += 1
        self.before(self.runs)
        return work(self.runtime)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> InProcess:
    here = InProcess()
    replace_workers(monkeypatch, here.run)
    monkeypatch.setattr(RunContext, "resources", lambda self, *_: ONE)
    return here


def context(store: Store, retries: Retries = QUICK, **fields: Any) -> RunContext:
    return RunContext(store, console=Console(file=StringIO()), retries=retries, **fields)


def printed(context: RunContext) -> str:
    assert isinstance(context.console.file, StringIO)
    return context.console.file.getvalue()


def weights(store: Store, record: StepRecord) -> dict[str, np.ndarray]:
    folder = store.local_path(f"{layout.attempt_folder(record.key, record.attempt)}/files")
    assert folder is not None
    return load_file(folder / "model.safetensors")


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_a_chain_is_trained_once(store: Store, here: InProcess):
    plan = plan_chain(CHAIN, store)
    result = ensure_chain(plan, context(store))
    base, weak = (step.record for step in result.steps)
    assert here.runs == 2  # each step is scored by the workers that trained it
    assert (weak.parent, weak.parent_attempt) == (base.key, base.attempt)
    assert weak.class_names == tuple("0123456")
    assert base.resources | {"attempts": 1, "restarts": 0, "resumed_from": 0} == base.resources
    assert [np.unique(step.confusion.image).tolist() for step in result.steps] == [
        list(range(6))
    ] * 2
    assert ensure_chain(plan, context(store)).record == result.record
    assert here.runs == 2


def test_chains_share_what_they_agree_on(store: Store, here: InProcess):
    first = ensure_chain(plan_chain(CHAIN, store), context(store))
    other = CHAIN.model_copy(
        update={
            "name": "other",
            "method": wilson.Config(warmup_epochs=1, localizer_channels=4, alpha=1),
        }
    )
    second = ensure_chain(plan_chain(other, store), context(store))
    assert first.steps[0].record == second.steps[0].record
    assert here.runs == 3


def test_a_lease_is_renewed_before_others_may_take_it_however_short_it_is(
    store: Store, here: InProcess
):
    plan = plan_chain(CHAIN, store)
    other = Lease(store, layout.step_lease(plan.steps[0].key), "other", period=1.0)
    got = []

    def watch(run: int) -> None:
        for _ in range(15):
            got.append(other.acquire())
            time.sleep(0.1)

    here.before = watch
    ensure_step(
        plan.steps[0], plan, context(store, retries=replace(QUICK, lease_seconds=1.0)), None
    )
    assert got
    assert not any(got)


def test_scoring_otherwise_trains_nothing(store: Store, here: InProcess):
    base = plan_chain(CHAIN, store).steps[0]
    original = CHAIN.model_copy(update={"evaluation": EvaluationConfig(short_side=None, crop=None)})
    ensure_chain(plan_chain(CHAIN, store), context(store))
    again = ensure_chain(plan_chain(original, store), context(store))
    assert here.runs == 4
    assert again.steps[0].record.key == base.key
    assert again.steps[0].confusion.pixels.sum() == 6 * 64 * 64


def test_a_restart_goes_on_from_the_newest_checkpoint_and_changes_nothing(
    store: Store, here: InProcess, tmp_path: Path, monkeypatch
):
    plan = plan_chain(CHAIN, store)
    whole = ensure_step(plan.steps[0], plan, context(store), None)
    uninterrupted = weights(store, whole)
    store.delete(f"{layout.step_folder(whole.key)}/")

    here.runtime = replace(here.runtime, checkpoint_every=0)
    saved = store_journal.save_checkpoint

    def save_then_lose(store: Store, key: str, attempt: str, folder: Path, iteration: int) -> None:
        saved(store, key, attempt, folder, iteration)
        if here.runs == 2 and iteration >= 6:
            raise workers.WorkersFailed("workers were lost (NodeDied)", None, "")

    monkeypatch.setattr(store_journal, "save_checkpoint", save_then_lose)
    watched = context(store)
    record = ensure_step(plan.steps[0], plan, watched, None)
    assert "workers were lost (NodeDied); going on from iteration 6" in printed(watched)
    assert record.resources["resumed_from"] == 6
    assert record.resources["restarts"] == 1
    assert set(record.train_parts) == {"data", "checkpoint"}
    assert 0 < sum(record.train_parts.values()) < record.seconds["train"]
    assert same(weights(store, record), uninterrupted)
    assert newest_checkpoint(store, record.key) is None  # it is not needed any more


def test_another_job_takes_over_from_the_checkpoint_of_a_dead_one(
    store: Store, here: InProcess, monkeypatch
):
    plan = plan_chain(CHAIN, store)
    whole = weights(store, ensure_step(plan.steps[0], plan, context(store), None))
    key = plan.steps[0].key
    store.delete(f"{layout.step_folder(key)}/")

    here.runtime = replace(here.runtime, checkpoint_every=0)
    saved = store_journal.save_checkpoint

    def save_then_die(store: Store, key: str, attempt: str, folder: Path, iteration: int) -> None:
        saved(store, key, attempt, folder, iteration)
        if iteration == 8:
            monkeypatch.setattr(store_journal, "save_checkpoint", saved)
            raise KeyboardInterrupt

    monkeypatch.setattr(store_journal, "save_checkpoint", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        ensure_step(plan.steps[0], plan, context(store), None)
    assert Repository(store).find_step(key) is None
    record = ensure_step(plan.steps[0], plan, context(store), None)
    assert record.resources | {"attempts": 2, "resumed_from": 8} == record.resources
    assert same(weights(store, record), whole)


def test_an_attempt_whose_workers_are_lost_each_time_fails(store: Store, here: InProcess):
    def lose(number: int) -> None:
        raise workers.WorkersFailed("workers were lost (OutOfMemory)", None, "traceback")

    here.before = lose
    plan = plan_chain(CHAIN, store)
    with pytest.raises(StepFailed, match=r"step 0 .* failed: workers were lost \(OutOfMemory\)"):
        ensure_step(plan.steps[0], plan, context(store), None)
    assert here.runs == 4
    (error,) = [
        name
        for name in store.list(layout.step_folder(plan.steps[0].key))
        if name.endswith("error.txt")
    ]
    assert store.read(error) == b"traceback"


def test_code_that_fails_is_not_run_again(store: Store, here: InProcess):
    def fail(number: int) -> None:
        raise workers.WorkersFailed("ValueError: no", ValueError("no"), "traceback")

    here.before = fail
    plan = plan_chain(CHAIN, store)
    with pytest.raises(StepFailed, match="ValueError: no"):
        ensure_step(plan.steps[0], plan, context(store), None)
    assert here.runs == 1
    assert not store.exists(layout.step_lease(plan.steps[0].key))


def test_a_published_step_without_its_files_is_refused_until_its_record_is_deleted(
    store: Store, here: InProcess
):
    plan = plan_chain(CHAIN, store)
    step = plan.steps[0]
    record = ensure_step(step, plan, context(store), None)
    model = layout.published_file(record.key, record.attempt, "model.safetensors")
    store.delete(model)
    name = layout.step_record(record.key)
    with pytest.raises(
        InputError, match=f"{model}' is gone .* delete '{name}', and the step is tr"
    ):
        ensure_step(step, plan, context(store), None)
    store.delete(name)
    assert ensure_step(step, plan, context(store), None).attempt != record.attempt
    assert here.runs == 2


def test_a_waiting_job_returns_what_the_other_published(
    store: Store, here: InProcess, monkeypatch: pytest.MonkeyPatch
):
    plan = plan_chain(CHAIN, store)
    record = ensure_step(plan.steps[0], plan, context(store), None)
    name = layout.step_record(record.key)
    published = store.read(name)
    store.delete(name)
    other = Lease(store, layout.step_lease(record.key), "ada@lab", period=60)
    assert other.acquire()

    waiting = context(store)

    def finish_the_other(*_: object, **__: object) -> None:
        store.write(name, published)

    monkeypatch.setattr(waiting.console, "print", finish_the_other)
    assert ensure_step(plan.steps[0], plan, waiting, None) == record
    assert here.runs == 1


def test_the_loser_of_a_race_returns_the_winners_record(store: Store, here: InProcess):
    plan = plan_chain(CHAIN, store)
    first = ensure_step(plan.steps[0], plan, context(store), None)
    name = layout.step_record(first.key)
    published = store.read(name)
    store.delete(name)
    here.before = lambda number: store.write(name, published)
    second = ensure_step(plan.steps[0], plan, context(store), None)
    assert here.runs == 2
    assert second == first


def test_a_lost_lease_stops_the_step_and_waits(store: Store, here: InProcess, monkeypatch):
    plan = plan_chain(CHAIN, store)
    lease = layout.step_lease(plan.steps[0].key)
    taken = Lease(store, layout.step_lease(plan.steps[0].key), "ada@lab", period=60)

    def take(number: int) -> None:
        if number == 1:
            store.delete(lease)
            assert taken.acquire()

    def run(work: Callable[[Runtime], Any], resources: Resources, *_: Any) -> Any:
        try:
            return here.run(work, resources)
        except LeaseLost as error:  # as Ray Train reports it
            raise workers.WorkersFailed("LeaseLost", error, "") from error

    replace_workers(monkeypatch, run)
    here.before = take
    watched = context(store, retries=replace(QUICK, lease_check_seconds=0.01))
    # `taken` has no heartbeat, so its lease goes stale.
    record = ensure_step(plan.steps[0], plan, watched, None)
    assert "no longer holds" in printed(watched)
    assert "waiting for ada@lab" in printed(watched)
    assert record.resources["attempts"] == 2
    assert not [
        name for name in store.list(layout.step_folder(record.key)) if name.endswith("error.txt")
    ]


def test_a_job_that_waits_for_room_keeps_the_step_from_nobody(
    store: Store, here: InProcess, monkeypatch
):
    plan = plan_chain(CHAIN, store)
    planned = plan.steps[0]
    others: list[StepRecord] = []
    still_deleting = Lease(store, layout.step_lease(planned.key), "ada@lab", period=60)

    def await_team(resources: Resources, retries: Retries, waiting: Waiting) -> None:
        # There is never room for this job, and meanwhile another one, which has some, trains.
        monkeypatch.setattr(workers, "await_team", lambda *_: None)
        waiting.check()
        others.append(ensure_step(planned, plan, context(store), None))
        assert still_deleting.acquire()  # the other's lease, a moment before it is released
        while True:
            time.sleep(0.01)
            waiting.check()

    monkeypatch.setattr(workers, "await_team", await_team)
    told: list[Message] = []
    without_room = context(store, on_message=told.append, follows_steps=False)
    assert ensure_step(planned, plan, without_room, None) == others[0]
    assert here.runs == 1
    assert told == [WaitingForWorkers()]
    assert still_deleting.is_mine()


def test_the_time_without_room_is_no_time_of_the_start(store: Store, here: InProcess, monkeypatch):
    def await_team(resources: Resources, retries: Retries, waiting: Waiting) -> None:
        time.sleep(0.3)
        waiting.seconds += 0.2

    monkeypatch.setattr(workers, "await_team", await_team)
    plan = plan_chain(CHAIN, store)
    watched = context(store)
    seconds = ensure_step(plan.steps[0], plan, watched, None).seconds
    assert seconds["wait"] >= 0.2
    assert seconds["start"] >= 0.1
    assert seconds["wait"] + seconds["start"] < 1
    assert f"{plan.steps[0].title}: start\n" in printed(watched)


def test_without_a_machine_for_its_workers_a_step_takes_no_lease(
    store: Store, here: InProcess, monkeypatch
):
    def await_team(*_: object) -> None:
        raise workers.WorkersFailed("no machine", workers.NoRoom("no machine"), "")

    monkeypatch.setattr(workers, "await_team", await_team)
    plan = plan_chain(CHAIN, store)
    with pytest.raises(StepHasNoRoom, match=r"step 0 .* failed: no machine"):
        ensure_step(plan.steps[0], plan, context(store), None)
    (details,) = store.list(layout.STEPS)
    assert details.endswith("/error.txt")


def test_a_job_that_is_stopped_keeps_a_checkpoint_at_once(
    store: Store, here: InProcess, monkeypatch
):
    plan = plan_chain(CHAIN, store)
    key = plan.steps[0].key
    whole = weights(store, ensure_step(plan.steps[0], plan, context(store), None))
    store.delete(f"{layout.step_folder(key)}/")

    def run(
        work: Callable[[Runtime], Any],
        resources: Resources,
        ask_to_end: Callable[[], None],
        *_: object,
    ) -> Any:
        elsewhere = pickle.loads(pickle.dumps(work))
        ask_to_end()  # as on SIGTERM
        try:
            return here.run(elsewhere, resources)
        except LeaseLost:
            raise KeyboardInterrupt from None

    replace_workers(monkeypatch, run)
    watched = context(store, retries=replace(QUICK, lease_check_seconds=0.01))
    with pytest.raises(KeyboardInterrupt):
        ensure_step(plan.steps[0], plan, watched, None)
    assert "keeping a checkpoint, then stopping" in printed(watched)
    kept = newest_checkpoint(store, key)
    assert kept is not None
    assert kept.iteration == here.runtime.log_every
    assert not store.exists(layout.step_lease(key))
    replace_workers(monkeypatch, here.run)
    record = ensure_step(plan.steps[0], plan, context(store), None)
    assert record.resources["resumed_from"] == kept.iteration
    assert same(weights(store, record), whole)


def test_weak_steps_never_read_masks(
    store: Store, here: InProcess, built: tuple[Path, Manifest], monkeypatch
):
    """Fail if a mask is decoded while a weak step trains.

    Scoring decodes masks, in evaluation views.
    """
    plan = plan_chain(CHAIN, store)
    base = ensure_step(plan.steps[0], plan, context(store), None)
    decode = dataset.decode_mask
    monkeypatch.setattr(dataset, "decode_mask", lambda data: pytest.fail("a mask was read"))
    evaluate = worker.evaluate

    def evaluate_with_masks(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(dataset, "decode_mask", decode)
        return evaluate(*arguments, **options)

    monkeypatch.setattr(worker, "evaluate", evaluate_with_masks)
    ensure_step(plan.steps[1], plan, context(store), base)


def test_the_store_may_be_away_while_progress_is_written(
    store: Store, here: InProcess, monkeypatch
):
    calls = []

    def away(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) < 3:
            raise StoreError("the server does not answer")

    monkeypatch.setattr(store_journal, "write_curves", away)
    plan = plan_chain(CHAIN, store)
    always = context(store, retries=replace(QUICK, flush_seconds_folder=0.01))
    record = ensure_step(plan.steps[0], plan, always, None)
    assert len(calls) > 3
    curves = json.loads(
        store.read(f"{layout.attempt_folder(record.key, record.attempt)}/files/curves.json")
    )
    assert curves[-1]["iteration"] == record.iterations


def test_damaged_files_are_not_scored(store: Store, here: InProcess):
    plan = plan_chain(CHAIN, store)
    record = ensure_step(plan.steps[0], plan, context(store), None)
    name = f"{layout.attempt_folder(record.key, record.attempt)}/files/model.safetensors"
    data = store.read(name)
    store.write(name, data[:-1] + bytes([data[-1] ^ 1]))
    cache = Path(str(store.uri)).parent / "cache"
    shutil.rmtree(cache)
    with pytest.raises(Exception, match="is corrupted"):
        ensure_evaluation(
            record,
            plan.source("train"),
            Scoring("digits", plan.manifest, "train", EvaluationConfig(short_side=32, crop=32)),
            context(store),
        )


def test_a_checkpoint_without_its_last_file_is_none(store: Store, tmp_path: Path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "state.json").write_text("{}")
    upload_folder(store, folder, "steps/abc/attempts/one/checkpoints/00000020")
    assert newest_checkpoint(store, "abc") is None
    store_journal.save_checkpoint(store, "abc", "one", folder, 10)
    found = newest_checkpoint(store, "abc")
    assert found is not None
    assert (found.iteration, found.attempt) == (10, "one")


def test_a_damaged_checkpoint_gives_way_to_an_older_one(
    store: Store, here: InProcess, monkeypatch, caplog
):
    """The newest checkpoint has a damaged file and the next a damaged list: the oldest is used."""
    monkeypatch.setattr("orchestrator.records.attempts.KEPT_CHECKPOINTS", 3)
    plan = plan_chain(CHAIN, store)
    uninterrupted = weights(store, ensure_step(plan.steps[0], plan, context(store), None))
    store.delete(f"{layout.step_folder(plan.steps[0].key)}/")

    here.runtime = replace(here.runtime, checkpoint_every=0)
    saved = store_journal.save_checkpoint

    def save_then_lose(store: Store, key: str, attempt: str, folder: Path, iteration: int) -> None:
        saved(store, key, attempt, folder, iteration)
        if here.runs == 2 and iteration == 6:
            folder_of = f"{layout.attempt_folder(key, attempt)}/checkpoints"
            store.write(f"{folder_of}/00000006/method.safetensors", b"something else")
            store.write(f"{folder_of}/00000004/done.json", b"{")
            raise workers.WorkersFailed("workers were lost (NodeDied)", None, "")

    monkeypatch.setattr(store_journal, "save_checkpoint", save_then_lose)
    record = ensure_step(plan.steps[0], plan, context(store), None)
    assert record.resources["resumed_from"] == 2
    assert same(weights(store, record), uninterrupted)
    assert "the checkpoint after 6 iterations cannot be used" in caplog.text
    assert "00000004/done.json" in caplog.text


def test_a_step_that_was_lost_while_it_was_scored_is_not_trained_again(
    store: Store, here: InProcess, monkeypatch
):
    plan = plan_chain(CHAIN, store)
    planned = plan.steps[0]
    whole = weights(store, ensure_step(planned, plan, context(store), None))
    store.delete(f"{layout.step_folder(planned.key)}/")
    evaluate = worker.evaluate

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(worker, "evaluate", die)
    with pytest.raises(KeyboardInterrupt):
        ensure_step(planned, plan, context(store), None)
    monkeypatch.setattr(worker, "evaluate", evaluate)
    monkeypatch.setattr(worker, "fit", lambda *_, **__: pytest.fail("it was trained again"))
    record = ensure_step(planned, plan, context(store), None)
    assert (
        record.resources | {"attempts": 2, "resumed_from": planned.iterations} == record.resources
    )
    assert same(weights(store, record), whole)
    assert (record.seconds["train"], record.images_per_second) == (0, None)
    assert newest_checkpoint(store, record.key) is None


def test_a_job_that_is_stopped_while_it_scores_ends_and_keeps_the_trained_files(
    store: Store, here: InProcess, monkeypatch
):
    plan = plan_chain(CHAIN, store)
    planned = plan.steps[0]
    evaluate = worker.evaluate

    def run(
        work: Callable[[Runtime], Any],
        resources: Resources,
        ask_to_end: Callable[[], None],
        *_: object,
    ) -> Any:
        def evaluate_when_stopped(*arguments: Any, **options: Any) -> Any:
            ask_to_end()  # as on SIGTERM
            time.sleep(0.5)  # the journal looks at the lease
            return evaluate(*arguments, **options)

        monkeypatch.setattr(worker, "evaluate", evaluate_when_stopped)
        elsewhere = pickle.loads(pickle.dumps(work))
        return here.run(elsewhere, resources)

    replace_workers(monkeypatch, run)
    lease = Lease(store, layout.step_lease(planned.key), "ada@lab")
    assert lease.acquire()
    watched = context(store, retries=replace(QUICK, lease_check_seconds=0.01))
    with pytest.raises(LeaseLost):
        produce_step(planned, plan, watched, None, lease, Ready(ONE, 0, 0))
    kept = newest_checkpoint(store, planned.key)
    assert kept is not None
    assert (kept.iteration, kept.trained) == (planned.iterations, True)


def test_trained_files_that_are_damaged_give_way_to_a_checkpoint(
    store: Store, here: InProcess, monkeypatch, caplog
):
    plan = plan_chain(CHAIN, store)
    planned = plan.steps[0]
    whole = weights(store, ensure_step(planned, plan, context(store), None))
    store.delete(f"{layout.step_folder(planned.key)}/")
    here.runtime = replace(here.runtime, checkpoint_every=0)
    score = worker.score

    def lose(*_: object) -> None:
        monkeypatch.setattr(worker, "score", score)
        (model,) = [
            name for name in store.list(layout.STEPS) if name.endswith("/files/model.safetensors")
        ]
        store.write(model, b"something else")
        shutil.rmtree(Path(store.uri).parent / "cache")
        raise workers.WorkersFailed("workers were lost (NodeDied)", None, "")

    monkeypatch.setattr(worker, "score", lose)
    record = ensure_step(planned, plan, context(store), None)
    assert 0 < record.resources["resumed_from"] < planned.iterations
    assert same(weights(store, record), whole)
    assert "cannot be used" in caplog.text


def test_plans_are_checked_before_anything_is_spent(store: Store, here: InProcess):
    def changed(**model: Any) -> Chain:
        return CHAIN.model_copy(update={"model": CHAIN.model.model_copy(update=model)})

    with pytest.raises(ValueError, match=r"set model\.output_stride to 4"):
        plan_chain(changed(output_stride=8), store)
    with pytest.raises(PlanError, match="has no encoder weights"):
        plan_chain(changed(weights="0" * 64), store)
    with pytest.raises(ValueError, match="cannot share a batch of 4 images evenly: use 2 workers"):
        ensure_chain(plan_chain(CHAIN, store), context(store, request=Request(workers=3)))
    assert not here.runs


def test_a_step_says_what_was_asked_from_its_first_attempt_on(store: Store, here: InProcess):
    def fail(number: int) -> None:
        if number == 1:
            raise workers.WorkersFailed("ValueError: no", ValueError("no"), "traceback")

    here.before = fail
    plan = plan_chain(CHAIN, store)
    planned = plan.steps[0]
    with pytest.raises(StepFailed):
        ensure_step(planned, plan, context(store), None)
    written = store.read(layout.step_request(planned.key))
    request = StepRequest.model_validate_json(written)
    assert (request.key, request.title) == (planned.key, planned.title)
    assert step_key(request.step, request.parent) == planned.key

    ensure_step(planned, plan, context(store), None)
    assert store.read(layout.step_request(planned.key)) == written, (
        "a later attempt changes nothing"
    )


class CurvesTracker:
    """Notes which steps it got curves of; takes everything else and does nothing."""

    def __init__(self) -> None:
        self.curves_of: set[str] = set()

    def curves(self, key: str, rows: object) -> None:
        self.curves_of.add(key)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def test_a_quiet_job_still_shows_curves_in_the_tracker(store: Store, here: InProcess):
    plan = plan_chain(CHAIN, store)
    tracker: Any = CurvesTracker()
    quiet = RunContext(store, console=Console(quiet=True), tracker=tracker, retries=QUICK)
    ensure_step(plan.steps[0], plan, quiet, None)
    assert tracker.curves_of == {plan.steps[0].key}


def test_a_trial_leaves_the_progress_of_its_step_to_the_driver(store: Store, here: InProcess):
    plan = plan_chain(CHAIN, store)
    tracker: Any = CurvesTracker()
    messages: list[Message] = []
    trial = context(store, tracker=tracker, follows_steps=False, on_message=messages.append)
    record = ensure_step(plan.steps[0], plan, trial, None)
    assert tracker.curves_of == set()
    assert printed(trial) == ""
    assert messages == [AttemptStarted(record.attempt)]
