"""Another attempt at a published step lies beside the first and says how they differ.

This process is the workers.
"""

from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from jobs.report import main as report
from jobs.train import main as train
from orchestrator.cluster.resources import Resources
from orchestrator.execution import store_journal, worker
from orchestrator.execution.context import RunContext
from orchestrator.execution.ensure import ensure_chain
from orchestrator.execution.reproduce import plan_again, reproduce
from orchestrator.execution.weight_difference import compare_weights
from orchestrator.planning.chain import Base, Chain
from orchestrator.planning.planner import plan_chain
from orchestrator.records import layout
from orchestrator.records.attempts import save_checkpoint
from orchestrator.records.prune import leftovers
from orchestrator.records.repository import Repository
from orchestrator.records.reproduction import Reproduction, reproductions
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from tests.support.datasets import publish_digits
from tests.support.workers_here import replace_workers
from training.config import Augmentation, EvaluationConfig, InputError, ModelConfig, Optimization
from training.methods import mib
from training.runtime import Runtime
from training.scenario import Scenario

FEW = Optimization(epochs=2, batch=4)
CHAIN = Chain(
    name="tiny",
    scenario=Scenario(dataset="digits", groups=(("0", "1", "2"), ("3", "4")), supervision="pixel"),
    base=Base(optimization=FEW),
    method=mib.Config(),
    optimization=FEW,
    model=ModelConfig(encoder="tiny", output_stride=4, head_channels=4, eval_pooling=8),
    augmentation=Augmentation(crop=32),
    evaluation=EvaluationConfig(short_side=32, crop=32),
)
ONE = Resources(
    workers=1, cpus_per_worker=1, gpus_per_worker=0, loader_workers=0, checkpoint_every=1e9
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a store that has a chain which was trained here."""
    folder = tmp_path_factory.mktemp("again")
    with pytest.MonkeyPatch.context() as patch:
        stay_here(patch, folder)
        store = open_store(str(folder / "store"))
        (folder / "built").mkdir()
        publish_digits(store, folder / "built", seed=3, train=24, val=6)
        ensure_chain(plan_chain(CHAIN, store), context(store))
    return folder


@pytest.fixture
def store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    stay_here(monkeypatch, folder)
    return open_store(str(folder / "store"))


def stay_here(patch: pytest.MonkeyPatch, folder: Path, every: float = 1e9) -> None:
    patch.setenv("STEPCHAIN_CACHE", str(folder / "cache"))
    runtime = Runtime(log_every=2, checkpoint_every=every)
    replace_workers(patch, lambda work, *_, **__: work(runtime))
    patch.setattr(RunContext, "resources", lambda self, *_: ONE)


def context(store: Store) -> RunContext:
    return RunContext(store, console=Console(file=StringIO()))


def again(store: Store, step: str) -> Reproduction:
    repository = Repository(store)
    record = repository.step_by_name(step)
    planned, plan = plan_again(record, repository)
    return reproduce(planned, plan, record, context(store))


def test_the_same_step_on_the_same_cpu_is_bit_identical(store: Store, tmp_path: Path):
    before = store.read(layout.step_record(Repository(store).step_by_name("tiny:1").key))
    found = again(store, "tiny:1")
    assert found.identical
    assert (found.weights.largest, found.weights.where) == (0, None)
    assert found.scores == found.published_scores
    assert "as before" in str(found)
    assert "the weights are bit-identical, and every image is predicted with" in str(found)
    key = found.step
    assert store.read(layout.step_record(key)) == before
    assert reproductions(Repository(store), key) == [found]
    report(["tiny", "--store", store.uri, "--out", str(tmp_path), "--no-pictures"])
    assert f"Step 1 of tiny: {found}." in (tmp_path / "report.html").read_text()
    assert not any(found.attempt in each.folder for each in leftovers(store, grace=timedelta(0)))
    # The lease of the attempt is gone, and so are its checkpoints.
    kept = list(store.list(f"{layout.attempt_folder(key, found.attempt)}/"))
    assert not any("lease" in name or "checkpoints" in name for name in kept)


def test_a_difference_is_measured_and_told(store: Store, monkeypatch: pytest.MonkeyPatch):
    fit: Callable[..., Path] = worker.fit

    def disturbed(*arguments: object, **options: object) -> Path:
        result = fit(*arguments, **options)
        weights = load_file(result / "model.safetensors")
        name = next(name for name in weights if name.endswith("classifiers.0.bias"))
        weights[name][0] += 50  # background wins everywhere
        save_file(weights, result / "model.safetensors")
        return result

    monkeypatch.setattr(worker, "fit", disturbed)
    found = again(store, "tiny:0")
    assert not found.identical
    assert found.weights.differing == 1
    assert found.weights.largest == pytest.approx(50)
    assert not found.same_counts
    assert "weight tensors differ, by 50 at most (model: classifiers.0.bias" in str(found)
    assert "mIoU changed from all " in str(found)


def test_it_starts_from_nothing_and_an_interrupted_one_leaves_no_finding(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    step = Repository(store).step_by_name("tiny:0").key
    before = list(store.list(layout.reproductions_folder(step)))

    def save_then_die(store: Store, key: str, attempt: str, folder: Path, iteration: int) -> None:
        save_checkpoint(store, key, attempt, folder, iteration)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        stay_here(patch, folder, every=0)
        patch.setattr(store_journal, "save_checkpoint", save_then_die)
        with pytest.raises(KeyboardInterrupt):
            again(store, step)
    assert list(store.list(layout.reproductions_folder(step))) == before
    assert any("checkpoints" in name for name in store.list(layout.attempts_folder(step)))
    found = again(store, step)
    assert found.identical
    assert found.resources["resumed_from"] == 0
    # The other attempt could be training still.
    assert any("checkpoints" in name for name in store.list(layout.attempts_folder(step)))


def test_the_command_line(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("jobs.machines.connect", lambda *_: None)
    monkeypatch.setattr("jobs.machines.check_machines", lambda *_: None)
    train(["--retrain", "tiny:0", "--store", store.uri])
    shown = " ".join(capsys.readouterr().out.split())
    assert "step 0 (fine-tuning: 0, 1, 2) (" in shown
    assert "the weights are bit-identical" in shown
    with pytest.raises(SystemExit) as stop:
        train(["--retrain", "tiny:7", "--store", store.uri])
    assert stop.value.code == 2
    assert "chain 'tiny' has steps 0 to 1" in capsys.readouterr().err


def test_a_step_of_no_chain_and_of_older_code_are_refused(store: Store):
    repository = Repository(store)
    record = repository.step_by_name("tiny:0")
    unknown = record.model_copy(update={"key": "0" * 16})
    with pytest.raises(InputError, match=r"no published chain of .* has step 0000"):
        plan_again(unknown, repository)
    method = record.step.method.model_copy(update={"recipe": 7})
    older = record.model_copy(update={"step": record.step.model_copy(update={"method": method})})
    with pytest.raises(InputError, match="recipe 7"):
        plan_again(older, repository)


def test_signs_of_zero_differ_in_a_bit_and_other_tensors_do_not_compare(tmp_path: Path):
    for name, tensor in (("a", torch.zeros(2)), ("b", -torch.zeros(2)), ("c", torch.zeros(3))):
        (tmp_path / name).mkdir()
        save_file({"weight": tensor}, tmp_path / name / "model.safetensors")
    found = compare_weights(tmp_path / "a", tmp_path / "b")
    assert (found.tensors, found.differing, found.largest) == (1, 1, 0)
    with pytest.raises(ValueError, match="do not hold the same tensors"):
        compare_weights(tmp_path / "a", tmp_path / "c")
