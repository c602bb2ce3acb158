"""Steps on a real Ray cluster are published, reused, and survive a killed worker."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray
from safetensors.numpy import load_file

from orchestrator.cluster.resources import Request
from orchestrator.cluster.workers import dismiss
from orchestrator.execution.context import RunContext
from orchestrator.execution.ensure import ensure_chain, ensure_step
from orchestrator.execution.evaluate import ensure_evaluation
from orchestrator.planning.chain import Base, Chain
from orchestrator.planning.planner import plan_chain
from orchestrator.records import layout
from orchestrator.records.repository import Repository
from orchestrator.records.schema import Scoring, StepFailed, StepRecord
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from orchestrator.store.retries import Retries
from tests.support.datasets import publish_digits
from tests.support.marks import on_ray
from training.config import Augmentation, EvaluationConfig, ModelConfig, Optimization
from training.methods import fine_tuning, wilson
from training.scenario import Scenario

pytestmark = on_ray(600)
EXACT = Optimization(epochs=6, batch=4, encoder_lr=0.02, head_lr=0.02, precision="float64")
CHAIN = Chain(
    name="integration",
    scenario=Scenario(dataset="digits", groups=(("0", "1", "2"), ("3", "4"))),
    base=Base(method=fine_tuning.Config(loss="bce"), optimization=EXACT),
    method=wilson.Config(warmup_epochs=1, localizer_channels=8),
    optimization=EXACT,
    model=ModelConfig(encoder="tiny", output_stride=4, head_channels=8, eval_pooling=16),
    augmentation=Augmentation(crop=64),
    evaluation=EvaluationConfig(short_side=None, crop=None),
)


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEPCHAIN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
    dismiss()
    ray.shutdown()


def new_store(folder: Path) -> Store:
    store = open_store(str(folder / "store"))
    publish_digits(store, folder / "dataset", seed=1, train=100, val=20)
    return store


def context(store: Store, workers: int = 1) -> RunContext:
    request = Request(workers=workers, cpus_per_worker=1, checkpoint_every=0.1)
    return RunContext(store, request, retries=Retries(lease_seconds=5))


def weights(store: Store, record: StepRecord) -> dict[str, np.ndarray]:
    folder = store.local_path(layout.files_folder(record.key, record.attempt))
    assert folder is not None
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory):
    """Train the chain with one worker; return its store and its results."""
    store = new_store(tmp_path_factory.mktemp("chain"))
    return store, ensure_chain(plan_chain(CHAIN, store), context(store))


def test_a_chain_is_published_with_its_evaluations(chain):
    store, result = chain
    base, weak = (step.record for step in result.steps)
    assert weak.parent == base.key
    assert weak.parent_attempt == base.attempt
    assert weak.class_names == ("0", "1", "2", "3", "4")
    assert set(base.files) >= {"model.json", "model.safetensors", "curves.json"}
    assert base.resources["attempts"] == 1
    assert base.seconds["train"] > 0
    # Every validation image was predicted once.
    assert len(np.unique(result.steps[0].confusion.image)) == 20
    assert result.steps[0].confusion.pixels.sum() == 20 * 64 * 64
    assert [row["iteration"] for row in result.steps[1].curves][-1] == weak.iterations
    for name in store.list("steps/"):
        assert "/checkpoints/" not in name
        assert not name.endswith("lease.json")


def test_asking_again_reads_the_records(chain):
    store, result = chain
    start = time.monotonic()
    again = ensure_chain(plan_chain(CHAIN, store), context(store))
    assert again.record == result.record
    assert time.monotonic() - start < 5
    assert len(list(store.list("chains/"))) == 1


def test_a_published_step_is_scored_again_on_other_pixels(chain):
    store, result = chain
    plan = plan_chain(CHAIN, store)
    record = Repository(store).step_by_name("integration:1")
    assert record == Repository(store).step_by_name(result.steps[1].record.key[:6])
    scoring = Scoring("digits", plan.manifest, "train", EvaluationConfig(short_side=None, crop=32))
    evaluation = ensure_evaluation(record, plan.source("train"), scoring, context(store, workers=2))
    assert evaluation.images == 100
    assert evaluation == ensure_evaluation(record, plan.source("train"), scoring, context(store))


def test_two_workers_and_a_kill_change_nothing(chain, tmp_path):
    """One of two workers is killed after the first checkpoint; the same attempt goes on."""
    store, result = chain
    other = new_store(tmp_path)
    plan = plan_chain(CHAIN, other)
    killer = threading.Thread(target=kill_a_worker, args=(other, plan.steps[0].key))
    killer.start()
    record = ensure_step(plan.steps[0], plan, context(other, workers=2), None)
    killer.join()
    assert record.resources["restarts"] == 1
    assert record.resources["resumed_from"] > 0
    assert record.key == result.steps[0].record.key
    mine, theirs = weights(other, record), weights(store, result.steps[0].record)
    for name, value in theirs.items():
        np.testing.assert_allclose(mine[name], value, rtol=0, atol=1e-10, err_msg=name)


def kill_a_worker(store: Store, key: str) -> None:
    """Wait for a checkpoint, then kill one of the processes that train."""
    while not any(layout.is_checkpoint_done(name) for name in store.list(f"steps/{key}/")):
        time.sleep(0.02)
    workers = [process for process in psutil.process_iter() if "RayTrainWorker" in process.name()]
    mine = [process for process in workers if psutil.Process() in process.parents()]
    mine[-1].kill()


def test_a_step_that_diverges_fails_once_and_says_why(chain):
    store, _ = chain
    wild = EXACT.model_copy(update={"encoder_lr": 1e6, "head_lr": 1e6, "epochs": 2.0})
    plan = plan_chain(CHAIN.model_copy(update={"base": Base(optimization=wild)}), store)
    with pytest.raises(StepFailed, match="lower the learning rates"):
        ensure_chain(plan, context(store))
    key = plan.steps[0].key
    (error,) = [name for name in store.list(f"steps/{key}/") if name.endswith("error.txt")]
    assert "Traceback" in store.read(error).decode()
    assert not store.exists(layout.step_lease(key))
