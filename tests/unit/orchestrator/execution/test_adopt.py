"""A model that was trained elsewhere is published, scored and built upon as one trained here.

This process is the workers; nothing needs Ray.
"""

from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from jobs.adopt import main as adopt
from jobs.adopted import find_adopted
from jobs.open_campaign import open_campaign
from jobs.options import ChainOptions
from jobs.train import parse
from orchestrator.analysis.sentences import adoption_words
from orchestrator.cluster.resources import Resources
from orchestrator.execution.context import RunContext
from orchestrator.execution.ensure import ensure_chain
from orchestrator.planning.campaign import with_adopted
from orchestrator.planning.campaign_plan import plan_tree
from orchestrator.planning.chain import Base, Chain
from orchestrator.planning.cost import measure
from orchestrator.planning.fields import with_field
from orchestrator.planning.planner import plan_chain
from orchestrator.planning.resolver import PlanError
from orchestrator.planning.store_state import StepState, look_up_steps
from orchestrator.records import layout
from orchestrator.records.repository import Repository
from orchestrator.records.results import load_chains
from orchestrator.report.chain_page import build_report, to_html
from orchestrator.report.times import campaign_times
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from orchestrator.tracking.runs import build_finished_chain_run, build_step_result_run
from tests.support.chains import complete
from tests.support.datasets import publish_digits
from tests.support.workers_here import replace_workers
from training.config import (
    Augmentation,
    EvaluationConfig,
    InputError,
    ModelConfig,
    Optimization,
)
from training.methods import ewc, fine_tuning
from training.metrics import wilson
from training.runtime import Runtime
from training.scenario import Scenario

FEW = Optimization(epochs=1, batch=4)
KNOWN = ("3", "0", "1")  # not in the order of the dataset
CHAIN = Chain(
    name="increments",
    scenario=Scenario(dataset="digits", groups=(KNOWN, ("4", "5", "6")), supervision="pixel"),
    base=Base(optimization=FEW),
    method=fine_tuning.Config(),
    optimization=FEW,
    model=ModelConfig(encoder="tiny", output_stride=4, head_channels=4, eval_pooling=8),
    augmentation=Augmentation(crop=32),
    evaluation=EvaluationConfig(short_side=32, crop=32),
)
MODEL = ("--model.output-stride", "4", "--model.dilated-blocks", "later")
MODEL += ("--model.eval-pooling", "8", "--model.activation", "relu")
VIEW = ("--short-side", "32", "--crop", "32", "--no-tracking")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with a chain that was trained here."""
    folder = tmp_path_factory.mktemp("adopt")
    store = open_store(str(folder / "store"))
    (folder / "digits").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        _stay_here(patch, folder)
        publish_digits(store, folder / "digits", seed=3, train=24, val=6)
        ensure_chain(plan_chain(with_field(CHAIN, "name", "trained"), store), _context(store))
    return folder


@pytest.fixture
def store(published: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    _stay_here(monkeypatch, published)
    monkeypatch.setenv("STEPCHAIN_STORE", str(published / "store"))
    return open_store(str(published / "store"))


def _stay_here(patch: pytest.MonkeyPatch, folder: Path) -> None:
    patch.setenv("STEPCHAIN_CACHE", str(folder / "cache"))
    replace_workers(patch, lambda work, *_, **__: work(Runtime(log_every=2)))
    here = Resources(
        workers=1, cpus_per_worker=1, gpus_per_worker=0, loader_workers=0, checkpoint_every=1e9
    )
    patch.setattr(RunContext, "resources", lambda self, *_: here)


def _context(store: Store) -> RunContext:
    return RunContext(store, console=Console(file=StringIO()))


def _trained_weights(store: Store) -> Path:
    record = Repository(store).step_by_name("trained:0")
    path = store.local_path(layout.published_file(record.key, record.attempt, "model.safetensors"))
    assert path is not None
    return path


def _adopt(store: Store, *more: str) -> None:
    options = ("--classes", ",".join(KNOWN), *MODEL, *VIEW, *more)
    adopt([str(_trained_weights(store)), *options])


def test_an_adopted_model_scores_as_the_step_it_is_and_increments_start_from_it(
    store: Store, capsys: pytest.CaptureFixture
):
    _adopt(store, "--name", "mine", "--from", "a friend")
    said = capsys.readouterr().out
    assert "was not trained here: its weights were adopted from model.safetensors" in said
    assert "from a friend" in said
    repository = Repository(store)
    trained = repository.step_by_name("trained:0")
    record = find_adopted(store, "mine")
    assert record == find_adopted(store, record.key)
    assert record.key != trained.key
    assert record.files["model.safetensors"] == trained.files["model.safetensors"]
    (mine,) = load_chains(repository, [repository.chain_by_name("mine")])
    (known,) = load_chains(repository, [repository.chain_by_name("trained")])
    for ours, theirs in zip(mine.steps[0].confusion, known.steps[0].confusion, strict=True):
        assert (ours == theirs).all()

    plan = plan_chain(with_adopted(CHAIN, record), store)
    assert plan.steps[0].key == record.key
    assert plan.batches == [("increment", 4)]
    result = ensure_chain(plan, _context(store))
    assert result.steps[0].record == record
    assert result.steps[1].record.parent == record.key
    assert result.steps[1].record.parent_attempt == record.attempt
    # The same weights, images and order: the increment is the one of the trained chain.
    first, second = (steps.steps[1].record.files["model.safetensors"] for steps in (result, known))
    assert first == second

    words = adoption_words([record])
    assert words in to_html(build_report([result], wilson()))
    run = build_finished_chain_run(result, wilson())
    step = build_step_result_run(result.steps[0], run, wilson())
    assert step.tags["mlflow.note.content"] == words
    assert step.tags["stepchain.adopted.origin"] == "a friend"
    assert step.data is None
    assert not any(name.startswith("optimization") for name in step.params)
    assert campaign_times([record]) is None
    assert measure([record], _context(store).request).overhead == 0


def test_the_same_weights_in_torchs_own_format_are_the_same_step(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture
):
    from safetensors.torch import load_file

    _adopt(store, "--name", "first", "--no-score")
    assert "not scored" in capsys.readouterr().out
    torch.save({"state_dict": load_file(_trained_weights(store))}, tmp_path / "w.pth")
    options = ("--name", "second", "--classes", ",".join(KNOWN), *MODEL, *VIEW)
    adopt([str(tmp_path / "w.pth"), *options])
    assert find_adopted(store, "second").key in capsys.readouterr().out
    chains = Repository(store).chains()
    keys = {each.steps[0] for each in chains if each.chain["name"] == "second"}
    assert keys == {find_adopted(store, "second").key}


def test_another_model_or_other_classes_are_another_step(store: Store):
    names = {
        "usual": (),
        "whole": ("--model.eval-pooling", "whole"),
        "other": ("--classes", "0,3,1"),
    }
    for name, options in names.items():
        _adopt(store, "--name", name, *options)
    found = {name: find_adopted(store, name) for name in names}
    assert len({record.key for record in found.values()}) == 3
    assert found["whole"].step.model.eval_pooling is None
    assert found["other"].step.task.classes == (1, 4, 2)


def test_a_chain_that_does_not_fit_the_adopted_model_is_refused(store: Store):
    _adopt(store, "--name", "fit")
    record = find_adopted(store, "fit")
    chain = with_adopted(CHAIN, record)
    others = with_field(chain, "scenario.groups", (("0", "1", "3"), ("4", "5", "6")))
    with pytest.raises(PlanError, match="knows 3, 0, 1, in this order, and the first group"):
        plan_chain(others, store)
    with pytest.raises(PlanError, match=r"no adopted step .* with these weights"):
        plan_chain(with_field(chain, "model.output_stride", 8), store)
    with pytest.raises(PlanError, match="an adopted step does not record"):
        plan_chain(with_field(chain, "method", ewc.Config()), store)
    with pytest.raises(InputError, match="was trained, not adopted"):
        with_adopted(CHAIN, find_adopted(store, "trained"))
    with pytest.raises(InputError):
        plan_chain(replace_weights(chain), store)


def replace_weights(chain: Chain) -> Chain:
    """Return the chain with weights that nobody adopted."""
    return with_field(chain, "base.method", {**dict(chain.base.method), "weights": "0" * 64})


def test_the_command_line_starts_chains_and_campaigns_from_it(store: Store, tmp_path: Path):
    _adopt(store, "--name", "start", "--no-score")
    _adopt(store, "--name", "start")
    record = find_adopted(store, "start")
    arguments = ["--adopted", "start", "--groups", "3,0,1", "4,5", "--optimization.batch", "2"]
    chain = complete(*parse("digits_finetuning", arguments), store)
    assert chain.model == record.step.model
    (first, second) = plan_chain(chain, store).steps
    assert (first.key, second.parent) == (record.key, record.key)
    file = tmp_path / "mine.py"
    file.write_text(
        "from stepchain import digits_finetuning, sweep\n"
        "def chains():\n    axes = {'scenario.groups': [(('3', '0', '1'), ('4', '5'))]}\n"
        "    axes |= {'optimization.batch': (2,), 'seed': (1, 2)}\n"
        "    return sweep(digits_finetuning(), axes)\n"
    )
    with open_campaign(str(file), ChainOptions(store.uri, adopted="start"), store) as opened:
        tree = plan_tree(opened.campaign, opened.planner)
    roots = [key for key, node in tree.nodes.items() if node.parent is None]
    assert roots == [record.key]
    assert len(tree.nodes) == 3
    assert look_up_steps(tree, store)[record.key].state == StepState.TO_SCORE


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--classes", "3,0,1"), "give the model a --name"),
        (("--name", "x"), "name the model's --classes"),
        (("--name", "x", "--classes", "cat,dog,cow"), "no dataset of the store has these classes"),
        (("--name", "x", "--classes", "3,0,1", "--preset", "voc_wilsn"), "did you mean"),
        (("--name", "x", "--classes", "3,0,1"), "does not say how its network computes"),
        (("--name", "x", "--classes", "3,0,1", "--dataset", "digts"), "did you mean 'digits'"),
    ],
)
def test_what_is_missing_is_one_sentence(
    options: tuple[str, ...], words: str, store: Store, capsys: pytest.CaptureFixture
):
    with pytest.raises(SystemExit) as caught:
        adopt([str(_trained_weights(store)), *options])
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
