"""Steps come to exist once, whatever interrupts, races or breaks. The workers are this process; Ray is an integration test."""

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

from orchestrator.cluster import ray_train
from orchestrator.cluster.resources import Request, Resources
from orchestrator.datasets.catalog import publish
from orchestrator.execution import worker
from orchestrator.execution.context import RunContext
from orchestrator.execution.ensure import ensure_chain, ensure_step
from orchestrator.execution.evaluate import ensure_evaluation
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
from orchestrator.records.schema import Scoring, StepFailed, StepRecord, StepRequest
from orchestrator.store.base import Store, StoreError
from orchestrator.store.lease import Lease, LeaseLost
from orchestrator.store.open import open_store
from tests.support.datasets import build_dataset
from training.config import Augmentation, EvaluationConfig, ModelConfig, Optimization
from training.data import dataset
from training.data.digits import Digits
from training.data.manifest import Manifest
from training.methods import fine_tuning, wilson
from training.runtime import Runtime
from training.scenario import Scenario

FEW = Optimization(epochs=4, batch=4, encoder_lr=0.02, head_lr=0.02)
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


class Here:
    """In place of ray_train.run: runs the work in this process, and does first whatever a test wants to happen."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.before: Callable[[int], None] = lambda number: None
        self.runtime = Runtime(log_every=2, checkpoint_every=1e9)

    def run(
        self, work: Callable[[Runtime], Any], resources: Resources, name: str, *_: object
    ) -> Any:
        self.runs.append(name)
        self.before(len(self.runs))
        return work(self.runtime)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    here = Here()
    monkeypatch.setattr(ray_train, "run", here.run)
    resources = Resources(
        workers=1, cpus_per_worker=1, gpus_per_worker=0, loader_workers=0, checkpoint_every=1e9
    )
    monkeypatch.setattr(RunContext, "resources", lambda self: resources)
    monkeypatch.setattr("orchestrator.execution.ensure.POLL_SECONDS", 0.01)
    return here


def place(store: Store, **fields: Any) -> RunContext:
    return RunContext(store, console=Console(file=StringIO()), lease_seconds=0.1, **fields)


def said(place: RunContext) -> str:
    assert isinstance(place.console.file, StringIO)
    return place.console.file.getvalue()


def weights(store: Store, record: StepRecord) -> dict[str, np.ndarray]:
    folder = store.local_path(f"{layout.attempt_folder(record.key, record.attempt)}/files")
    assert folder is not None
    return load_file(folder / "model.safetensors")


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_a_chain_is_trained_once(store: Store, here: Here):
    plan = plan_chain(CHAIN, store)
    result = ensure_chain(plan, place(store))
    base, weak = (step.record for step in result.steps)
    assert len(here.runs) == 2  # each step is scored by those who trained it
    assert (weak.parent, weak.parent_attempt) == (base.key, base.attempt)
    assert weak.class_names == tuple("0123456")
    assert base.resources | {"attempts": 1, "restarts": 0, "resumed_from": 0} == base.resources
    assert [np.unique(step.confusion.image).tolist() for step in result.steps] == [
        list(range(6))
    ] * 2
    assert ensure_chain(plan, place(store)).record == result.record
    assert len(here.runs) == 2


def test_chains_share_what_they_agree_on(store: Store, here: Here):
    first = ensure_chain(plan_chain(CHAIN, store), place(store))
    other = CHAIN.model_copy(
        update={
            "name": "other",
            "method": wilson.Config(warmup_epochs=1, localizer_channels=4, alpha=1),
        }
    )
    second = ensure_chain(plan_chain(other, store), place(store))
    assert first.steps[0].record == second.steps[0].record
    assert len(here.runs) == 3


def test_a_lease_is_renewed_before_others_may_take_it_however_short_it_is(store: Store, here: Here):
    plan = plan_chain(CHAIN, store)
    other, got = Lease(store, layout.step_lease(plan.steps[0].key), "other", period=1.0), []

    def watch(run: int) -> None:
        for _ in range(15):
            got.append(other.acquire())
            time.sleep(0.1)

    here.before = watch
    ensure_step(plan.steps[0], plan, replace(place(store), lease_seconds=1.0), None)
    assert got
    assert not any(got)


def test_scoring_otherwise_trains_nothing(store: Store, here: Here):
    base = plan_chain(CHAIN, store).steps[0]
    original = CHAIN.model_copy(update={"evaluation": EvaluationConfig(short_side=None, crop=None)})
    ensure_chain(plan_chain(CHAIN, store), place(store))
    again = ensure_chain(plan_chain(original, store), place(store))
    assert len(here.runs) == 4
    assert again.steps[0].record.key == base.key
    assert again.steps[0].confusion.pixels.sum() == 6 * 64 * 64


def test_a_restart_goes_on_from_the_newest_checkpoint_and_changes_nothing(
    store: Store, here: Here, tmp_path: Path, monkeypatch
):
    plan = plan_chain(CHAIN, store)
    whole = ensure_step(plan.steps[0], plan, place(store), None)
    uninterrupted = weights(store, whole)
    store.delete(f"{layout.step_folder(whole.key)}/")

    here.runtime = replace(here.runtime, checkpoint_every=0)
    saved = worker.save_checkpoint

    def save_then_lose(store: Store, key: str, attempt: str, folder: Path, iteration: int) -> None:
        saved(store, key, attempt, folder, iteration)
        if len(here.runs) == 2 and iteration >= 6:
            raise ray_train.WorkersFailed("workers were lost (NodeDied)", None, "")

    monkeypatch.setattr(worker, "save_checkpoint", save_then_lose)
    watched = place(store)
    record = ensure_step(plan.steps[0], plan, watched, None)
    assert "workers were lost (NodeDied); going on from iteration 6" in said(watched)
    assert record.resources["resumed_from"] == 6
    assert record.resources["restarts"] == 1
    assert same(weights(store, record), uninterrupted)
    assert newest_checkpoint(store, record.key) is None  # nobody needs it any more


def test_another_job_takes_over_from_the_checkpoint_of_a_dead_one(
    store: Store, here: Here, monkeypatch
):
    plan = plan_chain(CHAIN, store)
    whole = weights(store, ensure_step(plan.steps[0], plan, place(store), None))
    key = plan.steps[0].key
    store.delete(f"{layout.step_folder(key)}/")

    here.runtime = replace(here.runtime, checkpoint_every=0)
    saved = worker.save_checkpoint

    def save_then_die(store: Store, key: str, attempt: str, folder: Path, iteration: int) -> None:
        saved(store, key, attempt, folder, iteration)
        if iteration == 8:
            monkeypatch.setattr(worker, "save_checkpoint", saved)
            raise KeyboardInterrupt

    monkeypatch.setattr(worker, "save_checkpoint", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        ensure_step(plan.steps[0], plan, place(store), None)
    assert Repository(store).find_step(key) is None
    record = ensure_step(plan.steps[0], plan, place(store), None)
    assert record.resources | {"attempts": 2, "resumed_from": 8} == record.resources
    assert same(weights(store, record), whole)


def test_workers_that_are_lost_each_time_are_given_up(store: Store, here: Here):
    def lose(number: int) -> None:
        raise ray_train.WorkersFailed("workers were lost (OutOfMemory)", None, "traceback")

    here.before = lose
    plan = plan_chain(CHAIN, store)
    with pytest.raises(StepFailed, match=r"step 0 .* failed: workers were lost \(OutOfMemory\)"):
        ensure_step(plan.steps[0], plan, place(store), None)
    assert len(here.runs) == 4
    (error,) = [
        name
        for name in store.list(layout.step_folder(plan.steps[0].key))
        if name.endswith("error.txt")
    ]
    assert store.read(error) == b"traceback"


def test_code_that_fails_is_not_run_again(store: Store, here: Here):
    def fail(number: int) -> None:
        raise ray_train.WorkersFailed("ValueError: no", ValueError("no"), "traceback")

    here.before = fail
    plan = plan_chain(CHAIN, store)
    with pytest.raises(StepFailed, match="ValueError: no"):
        ensure_step(plan.steps[0], plan, place(store), None)
    assert len(here.runs) == 1
    assert not store.exists(layout.step_lease(plan.steps[0].key))


def test_who_waits_returns_what_the_other_published(store: Store, here: Here):
    plan = plan_chain(CHAIN, store)
    record = ensure_step(plan.steps[0], plan, place(store), None)
    name = layout.step_record(record.key)
    published = store.read(name)
    store.delete(name)
    other = Lease(store, layout.step_lease(record.key), "ada@lab", period=60)
    assert other.acquire()

    waiting = place(store)
    waiting.console.print = lambda text, **style: store.write(
        name, published
    )  # while this one waits, the other finishes
    assert ensure_step(plan.steps[0], plan, waiting, None) == record
    assert len(here.runs) == 1


def test_who_loses_the_race_returns_the_winners_record(store: Store, here: Here):
    plan = plan_chain(CHAIN, store)
    first = ensure_step(plan.steps[0], plan, place(store), None)
    name = layout.step_record(first.key)
    published = store.read(name)
    store.delete(name)
    here.before = lambda number: store.write(name, published) and None
    second = ensure_step(plan.steps[0], plan, place(store), None)
    assert len(here.runs) == 2
    assert second == first


def test_a_lost_lease_stops_the_step_and_waits(store: Store, here: Here, monkeypatch):
    plan = plan_chain(CHAIN, store)
    monkeypatch.setattr(worker, "LEASE_SECONDS", -1)
    lease = layout.step_lease(plan.steps[0].key)
    taken = Lease(store, layout.step_lease(plan.steps[0].key), "ada@lab", period=60)

    def take(number: int) -> None:
        if number == 1:
            store.delete(lease)
            assert taken.acquire()

    def run(
        work: Callable[[Runtime], Any], resources: Resources, name: str, ask_to_end: Any
    ) -> Any:
        try:
            return here.run(work, resources, name)
        except LeaseLost as error:  # as Ray Train reports it
            raise ray_train.WorkersFailed("LeaseLost", error, "") from error

    monkeypatch.setattr(ray_train, "run", run)
    here.before = take
    watched = place(store)
    record = ensure_step(
        plan.steps[0], plan, watched, None
    )  # `taken` never beats, so its lease goes stale
    assert "no longer holds" in said(watched)
    assert "waiting for ada@lab" in said(watched)
    assert record.resources["attempts"] == 2
    assert not [
        name for name in store.list(layout.step_folder(record.key)) if name.endswith("error.txt")
    ]


def test_a_job_that_is_stopped_keeps_a_checkpoint_at_once(store: Store, here: Here, monkeypatch):
    plan = plan_chain(CHAIN, store)
    key = plan.steps[0].key
    whole = weights(store, ensure_step(plan.steps[0], plan, place(store), None))
    store.delete(f"{layout.step_folder(key)}/")

    def run(
        work: Callable[[Runtime], Any],
        resources: Resources,
        name: str,
        ask_to_end: Callable[[], None],
    ) -> Any:
        elsewhere = pickle.loads(pickle.dumps(work))
        ask_to_end()  # as on SIGTERM
        try:
            return here.run(elsewhere, resources, name)
        except LeaseLost:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(worker, "LEASE_SECONDS", -1)
    monkeypatch.setattr(ray_train, "run", run)
    watched = place(store)
    with pytest.raises(KeyboardInterrupt):
        ensure_step(plan.steps[0], plan, watched, None)
    assert "keeping a checkpoint, then stopping" in said(watched)
    kept = newest_checkpoint(store, key)
    assert kept is not None
    assert kept.iteration == here.runtime.log_every
    assert not store.exists(layout.step_lease(key))
    monkeypatch.setattr(ray_train, "run", here.run)
    record = ensure_step(plan.steps[0], plan, place(store), None)
    assert record.resources["resumed_from"] == kept.iteration
    assert same(weights(store, record), whole)


def test_weak_steps_never_read_masks(
    store: Store, here: Here, built: tuple[Path, Manifest], monkeypatch
):
    """Decoding a mask while a weak step trains is an error; scoring needs them, and decodes them in evaluation views."""
    plan = plan_chain(CHAIN, store)
    base = ensure_step(plan.steps[0], plan, place(store), None)
    decode = dataset.decode_mask
    monkeypatch.setattr(dataset, "decode_mask", lambda data: pytest.fail("a mask was read"))
    evaluate = worker.evaluate

    def evaluate_with_masks(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(dataset, "decode_mask", decode)
        return evaluate(*arguments, **options)

    monkeypatch.setattr(worker, "evaluate", evaluate_with_masks)
    ensure_step(plan.steps[1], plan, place(store), base)


def test_the_store_may_be_away_while_progress_is_written(store: Store, here: Here, monkeypatch):
    monkeypatch.setitem(worker.FLUSH_SECONDS, True, -1)
    calls = []

    def away(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) < 3:
            raise StoreError("the server does not answer")

    monkeypatch.setattr(worker, "write_curves", away)
    plan = plan_chain(CHAIN, store)
    record = ensure_step(plan.steps[0], plan, place(store), None)
    assert len(calls) > 3
    curves = json.loads(
        store.read(f"{layout.attempt_folder(record.key, record.attempt)}/files/curves.json")
    )
    assert curves[-1]["iteration"] == record.iterations


def test_damaged_files_are_not_scored(store: Store, here: Here):
    plan = plan_chain(CHAIN, store)
    record = ensure_step(plan.steps[0], plan, place(store), None)
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
            place(store),
        )


def test_a_checkpoint_without_its_last_file_is_none(store: Store, tmp_path: Path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "state.json").write_text("{}")
    upload_folder(store, folder, "steps/abc/attempts/one/checkpoints/00000020")
    assert newest_checkpoint(store, "abc") is None
    worker.save_checkpoint(store, "abc", "one", folder, 10)
    found = newest_checkpoint(store, "abc")
    assert found is not None
    assert (found.iteration, found.attempt) == (10, "one")


def test_a_damaged_checkpoint_gives_way_to_an_older_one(
    store: Store, here: Here, monkeypatch, caplog
):
    """Of three checkpoints the newest has a damaged file and the next a damaged list: training goes on from the oldest."""
    monkeypatch.setattr("orchestrator.records.attempts.KEPT_CHECKPOINTS", 3)
    plan = plan_chain(CHAIN, store)
    uninterrupted = weights(store, ensure_step(plan.steps[0], plan, place(store), None))
    store.delete(f"{layout.step_folder(plan.steps[0].key)}/")

    here.runtime = replace(here.runtime, checkpoint_every=0)
    saved = worker.save_checkpoint

    def save_then_lose(store: Store, key: str, attempt: str, folder: Path, iteration: int) -> None:
        saved(store, key, attempt, folder, iteration)
        if len(here.runs) == 2 and iteration == 6:
            folder_of = f"{layout.attempt_folder(key, attempt)}/checkpoints"
            store.write(f"{folder_of}/00000006/method.safetensors", b"something else")
            store.write(f"{folder_of}/00000004/done.json", b"{")
            raise ray_train.WorkersFailed("workers were lost (NodeDied)", None, "")

    monkeypatch.setattr(worker, "save_checkpoint", save_then_lose)
    record = ensure_step(plan.steps[0], plan, place(store), None)
    assert record.resources["resumed_from"] == 2
    assert same(weights(store, record), uninterrupted)
    assert "the checkpoint after 6 iterations cannot be used" in caplog.text
    assert "00000004/done.json" in caplog.text


def test_plans_are_checked_before_anything_is_spent(store: Store, here: Here):
    def changed(**model: Any) -> Chain:
        return CHAIN.model_copy(update={"model": CHAIN.model.model_copy(update=model)})

    with pytest.raises(ValueError, match=r"set model\.output_stride to 4"):
        plan_chain(changed(output_stride=8), store)
    with pytest.raises(PlanError, match="has no encoder weights"):
        plan_chain(changed(weights="0" * 64), store)
    with pytest.raises(ValueError, match="cannot share a batch of 4 images evenly: use 2 workers"):
        ensure_chain(plan_chain(CHAIN, store), place(store, request=Request(workers=3)))
    assert not here.runs


def test_a_step_says_what_was_asked_from_its_first_attempt_on(store: Store, here: Here):
    def fail(number: int) -> None:
        if number == 1:
            raise ray_train.WorkersFailed("ValueError: no", ValueError("no"), "traceback")

    here.before = fail
    plan = plan_chain(CHAIN, store)
    planned = plan.steps[0]
    with pytest.raises(StepFailed):
        ensure_step(planned, plan, place(store), None)
    written = store.read(layout.step_request(planned.key))
    request = StepRequest.model_validate_json(written)
    assert (request.key, request.title) == (planned.key, planned.title)
    assert step_key(request.step, request.parent) == planned.key

    ensure_step(planned, plan, place(store), None)
    assert store.read(layout.step_request(planned.key)) == written, (
        "a later attempt changes nothing"
    )
