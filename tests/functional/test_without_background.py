"""Test scenarios without background from Cityscapes' files to the tables of a chain."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from jobs import ingest
from orchestrator.datasets.catalog import resolve
from orchestrator.datasets.stored_split import open_stored_split
from orchestrator.planning.chain import Base, Chain
from orchestrator.planning.planner import plan_chain
from orchestrator.planning.resolver import PlannedStep
from orchestrator.records.repository import Repository
from orchestrator.records.results import load_chains
from orchestrator.report.chain_page import build_report
from orchestrator.report.chain_tables import class_table
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from stepchain import split_groups
from tests.support.confusions import confusion_of_rows
from tests.support.records import publish_chain
from tests.support.streets import write_streets
from training.batches import step_batches
from training.checkpoint import load_model
from training.config import Augmentation, EvaluationConfig, MethodConfig, ModelConfig, Optimization
from training.data.cityscapes import CITYSCAPES_CLASSES
from training.evaluate import evaluate
from training.fit import fit
from training.journal import MemoryJournal
from training.methods import fine_tuning, icarl, ilt, lwf, lwf_mc, mib, plop, ssul, wilson
from training.metrics import Confusion, score
from training.metrics import mib as mib_convention
from training.metrics import plop as plop_convention
from training.metrics import wilson as wilson_convention
from training.runtime import Runtime
from training.scenario import Scenario

SMALL = Optimization(epochs=3, batch=4, encoder_lr=0.2, head_lr=0.2)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("streets")
    root = write_streets(folder / "cityscapes")
    ingest.main(["cityscapes", "--root", str(root), "--store", str(folder / "store")])
    return open_store(str(folder / "store"))


def chain(method: MethodConfig, split: str = "14-1", **scenario: Any) -> Chain:
    fields: dict[str, Any] = {
        "dataset": "cityscapes",
        "groups": split_groups(split, CITYSCAPES_CLASSES),
        "supervision": method.supervision,
        "void": "ignore",
        "background": "none",
    }
    loss = "bce" if isinstance(method, wilson.Config | icarl.Config | lwf_mc.Config) else None
    base = fine_tuning.Config(loss=loss or "cross_entropy")
    return Chain(
        name="streets",
        scenario=Scenario(**fields | scenario),
        base=Base(method=base, optimization=SMALL),
        method=method,
        optimization=SMALL.model_copy(update={"encoder_lr": 0.02, "head_lr": 0.05}),
        model=ModelConfig(encoder="tiny", output_stride=4, head_channels=16, eval_pooling=8),
        augmentation=Augmentation(crop=32),
        evaluation=EvaluationConfig(short_side=None, crop=None),
    )


@pytest.mark.parametrize(("split", "steps"), [("14-1", 6), ("13-6", 2), ("10-1", 10)])
def test_the_splits_of_cityscapes_are_planned_with_a_channel_for_each_class(
    store: Store, split: str, steps: int
):
    planned = plan_chain(chain(lwf.Config(), split), store).steps
    assert len(planned) == steps
    assert sum(planned[-1].step.task.channels) == 19
    assert planned[0].step.task.channels == (int(split.split("-")[0]),)
    with_background = plan_chain(chain(mib.Config(), split, background="class"), store).steps
    assert sum(with_background[-1].step.task.channels) == 20


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        (mib.Config(), "lets background stand for"),
        (plop.Config(), "gives pseudo-labels to pixels of background"),
        (wilson.Config(), "finds its classes against a background"),
        (icarl.Config(), "method.background previous"),
        (fine_tuning.Config(ignore_background=True), "ignores the pixels of background"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_method_that_rests_on_background_is_refused_with_the_reason(
    store: Store, method: MethodConfig, reason: str
):
    with pytest.raises(ValidationError, match=f"no background channel .*{reason}.*take a method"):
        plan_chain(chain(method, "13-6"), store)


def test_ssul_needs_the_background_that_it_divides(store: Store):
    wanted = chain(ssul.Config(), "13-6")
    model = wanted.model.model_copy(update={"classifier": "ssul"})
    base = wanted.base.model_copy(update={"method": ssul.Config()})
    with pytest.raises(ValidationError, match="divides background into known and unknown"):
        plan_chain(wanted.model_copy(update={"model": model, "base": base}), store)


def test_what_a_step_does_not_label_is_void_to_it(store: Store, tmp_path: Path):
    _, later = plan_chain(chain(lwf.Config(), "13-6"), store).steps
    _, manifest = resolve(store, "cityscapes")
    data = open_stored_split(store, manifest, "train", tmp_path / "cache")
    batch = next(iter(step_batches(later.step, data, later.rows, Runtime(), 0, 1)))
    found = set(batch.masks.unique().tolist())
    assert found <= {*range(13, 19), 255}
    assert {255} < found


def train(planned: PlannedStep, store: Store, parent: Path | None, folder: Path) -> Path:
    _, manifest = resolve(store, "cityscapes")
    data = open_stored_split(store, manifest, "train", folder.parent / "cache")
    return fit(
        planned.step,
        data,
        planned.rows,
        Runtime(),
        parent=parent,
        encoder_weights=None,
        folder=folder,
        resume=None,
        journal=MemoryJournal(),
    )


@pytest.mark.parametrize(
    "method",
    [lwf.Config(), ilt.Config(), icarl.Config(background="previous"), lwf_mc.Config()],
    ids=lambda method: method.name,
)
def test_a_chain_without_background_is_trained_and_scored(
    store: Store, tmp_path: Path, method: MethodConfig
):
    wanted = chain(method, "13-6")
    first, second = plan_chain(wanted, store).steps
    base = train(first, store, None, tmp_path / "first")
    files = train(second, store, base, tmp_path / "second")
    model, document = load_model(files)
    assert document.background == "none"
    assert document.class_ids == tuple(range(1, 20))
    assert sum(layer.out_channels for layer in model.last_layers) == 19
    _, manifest = resolve(store, "cityscapes")
    data = open_stored_split(store, manifest, "val", tmp_path / "cache")
    table = evaluate(files, data, wanted.evaluation, Runtime())
    columns = [np.from_dlpack(table[name].combine_chunks()) for name in table.column_names]
    confusion = Confusion(*columns)
    assert 0 not in confusion.predicted
    groups = second.step.task.groups
    for convention in (wilson_convention(), mib_convention(), plop_convention()):
        scores = score(confusion, groups, convention.for_models("none"))
        assert list(scores.iou) == list(range(1, 20))
        known = [value for value in scores.iou.values() if value is not None]
        assert scores.miou_all == pytest.approx(sum(known) / len(known))


def test_future_and_background_pixels_are_left_out():
    confusion = confusion_of_rows(
        # image, truth, predicted, pixels
        [(0, 1, 1, 6), (0, 1, 2, 2), (0, 2, 2, 4), (0, 3, 1, 50), (0, 0, 2, 50), (0, 255, 1, 9)]
    )
    scores = score(confusion, ((1,), (2,)), plop_convention().for_models("none"))
    assert scores.iou == {1: 6 / 8, 2: 4 / 6}
    assert scores.miou_all == scores.miou_all_without_background == (6 / 8 + 4 / 6) / 2
    assert scores.miou_old_with_background is None
    assert scores.pixel_accuracy == 10 / 12
    words = plop_convention().for_models("none").words
    assert "there is no background, and “all” is the mean of the classes" in words


def test_tables_have_no_row_of_background(tmp_path: Path):
    store = open_store(str(tmp_path / "published"))
    record = publish_chain(store, "streets", method=lwf.Config())
    (published,) = load_chains(Repository(store), [record])
    steps = []
    for step in published.steps:
        task = step.record.step.task.model_copy(update={"background": "none"})
        document = step.record.step.model_copy(update={"task": task})
        steps.append(replace(step, record=step.record.model_copy(update={"step": document})))
    chains = [replace(published, steps=tuple(steps))]
    with_background = class_table([published], wilson_convention())
    without = class_table(chains, wilson_convention())
    names = [row.name for row in without.rows]
    assert "background" not in names
    assert [row.name for row in with_background.rows if row.name not in names] == [
        "background",
        "old with background",
        "all with background",
    ]
    assert [row.name for row in without.rows if row.strong] == ["old", "new", "all"]
    assert "there is no background" in without.caption
    report = build_report(chains, wilson_convention())
    assert "with background" not in str(report.summary)
    assert report.forgetting is not None
    assert "background" not in [row.name for row in report.forgetting.rows]
