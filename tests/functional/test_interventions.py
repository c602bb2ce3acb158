"""Check that each intervention removes its own cause of forgetting and changes nothing else.

The interventions are frozen parts, ignored background and labels of earlier classes.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.support.datasets import build_dataset, open_split
from training.checkpoint import freeze, load_model
from training.config import Augmentation, MethodConfig, ModelConfig, Optimization, Task
from training.data.digits import Digits
from training.data.shards import LocalSplit
from training.fit import fit
from training.journal import MemoryJournal
from training.methods import fine_tuning, retraining
from training.methods.base import Batch, Progress
from training.models.segmenter import Segmenter, normalise
from training.runtime import Runtime
from training.scenario import select_images
from training.step_config import StepConfig

GROUPS = ((1, 2, 3, 4, 5, 6), (7, 8))
MODEL = ModelConfig(encoder="tiny", output_stride=4, head_channels=6, eval_pooling=8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> LocalSplit:
    folder = tmp_path_factory.mktemp("scenes")
    manifest, _ = build_dataset(Digits(seed=3, train=24, val=1), folder)
    return open_split(manifest, "train", folder)


def trained(
    data: LocalSplit,
    method: MethodConfig,
    folder: Path,
    parent: Path | None = None,
    labels: str = "new",
    **optimization: Any,
) -> Path:
    """Train and return the published folder of step 0, or with a parent of step 1."""
    number = 0 if parent is None else 1
    rows = select_images(data.index.labels, GROUPS, number, "overlap")
    task = {
        "data": data.content,
        "groups": GROUPS[: number + 1],
        "selection": data.index.selection_digest(rows),
        "images": len(rows),
        "supervision": "pixel",
        "labels": labels,
    }
    step = StepConfig(
        task=Task.model_validate(task),
        method=method.with_current_recipe(),
        model=MODEL,
        optimization=Optimization.model_validate({"epochs": 1, "batch": 4} | optimization),
        augmentation=Augmentation(crop=32, scale=(0.99, 1)),
    )
    return fit(
        step,
        data,
        rows,
        Runtime(log_every=1),
        parent=parent,
        encoder_weights=None,
        folder=folder,
        resume=None,
        journal=MemoryJournal(),
    )


@pytest.fixture(scope="module")
def parent(data: LocalSplit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(data, fine_tuning.Config(), tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def later(data: LocalSplit, parent: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(data, fine_tuning.Config(), tmp_path_factory.mktemp("later"), parent)


PARTS = ("encoder weights", "encoder statistics", "decoder weights", "decoder statistics")


def parts(folder: Path) -> dict[str, dict[str, Tensor]]:
    """Return a model's entries by part: encoder or decoder, weights or batch norm statistics."""
    found: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    for name, value in load_model(folder)[0].state_dict().items():
        part = "encoder" if name.startswith("encoder.") else "decoder"
        kind = "statistics" if "running" in name else "weights"
        found[f"{part} {kind}"][name] = value
    return found


def changed(before: Path, after: Path) -> set[str]:
    """Return the parts in which some entry that both models have differs."""
    first, second = parts(before), parts(after)
    found = set()
    for part, entries in first.items():
        if any(not torch.equal(value, second[part][name]) for name, value in entries.items()):
            found.add(part)
    return found


def head(folder: Path) -> dict[str, Tensor]:
    """Return the weights of a model's head."""
    weights = parts(folder)["decoder weights"]
    return {name: value for name, value in weights.items() if name.startswith("head.")}


@pytest.mark.parametrize(
    ("frozen", "moves"),
    [
        ("nothing", set(PARTS)),
        ("statistics", {"encoder weights", "decoder weights"}),
        ("encoder", {"decoder weights", "decoder statistics"}),
        # The newest classifier is none of what both models have.
        ("all_but_newest", set()),
    ],
)
def test_what_is_frozen_stays_and_the_rest_moves(
    data: LocalSplit, parent: Path, tmp_path: Path, frozen: str, moves: set[str]
):
    step = trained(data, fine_tuning.Config(), tmp_path / "step", parent, frozen=frozen)
    assert changed(parent, step) == moves


@pytest.mark.parametrize(
    ("part", "moves"),
    [("classifier", {"decoder weights"}), ("decoder", {"decoder weights", "decoder statistics"})],
)
def test_retraining_keeps_what_lies_before(
    data: LocalSplit, later: Path, tmp_path: Path, part: Any, moves: set[str]
):
    step = trained(data, retraining.Config(part=part), tmp_path / "again", later, labels="seen")
    assert changed(later, step) == moves
    before, after = head(later), head(step)
    assert before
    kept = all(torch.equal(value, after[name]) for name, value in before.items())
    assert kept == (part == "classifier")


def test_retraining_forgets_the_old_classifier(data: LocalSplit, later: Path, tmp_path: Path):
    """The new classifiers start from the same random weights, whatever the old ones were."""
    other = shutil.copytree(later, tmp_path / "other")
    state = load_file(later / "model.safetensors")
    for name in state:
        if name.startswith("classifiers."):
            state[name] = state[name] + 3
    save_file(state, other / "model.safetensors")
    assert changed(later, other) == {"decoder weights"}
    retrained = []
    for number, folder in enumerate((later, other)):
        path = tmp_path / f"again {number}"
        retrained.append(trained(data, retraining.Config(), path, folder, labels="seen"))
    assert changed(*retrained) == set()


def gradient_by_pixel(config: fine_tuning.Config, target: Tensor) -> Tensor:
    """Return the gradient's size at each pixel's logits, summed over channels: [B, H, W]."""
    task = Task(data="d", groups=GROUPS, selection="s", images=4, supervision="pixel")
    step = StepConfig(
        task=task,
        method=config,
        model=MODEL,
        optimization=Optimization(),
        augmentation=Augmentation(crop=16),
    )
    torch.manual_seed(0)
    method = fine_tuning.Method(step, freeze(Segmenter(MODEL, task.channels[:-1])))
    images, height, width = target.shape
    logits = torch.randn(images, sum(task.channels), height, width, requires_grad=True)
    pixels = torch.zeros(images, 3, height, width, dtype=torch.uint8)
    method.outputs = lambda images: method.model(images)._replace(logits=logits)
    batch = Batch(pixels, normalise(pixels), target, torch.zeros(1))
    loss = method(batch, Progress(0, 10, 5))["segmentation"]
    (gradient,) = torch.autograd.grad(loss, logits)
    return gradient.abs().sum(1)


def test_ignored_background_has_no_gradient():
    target = torch.randint(0, 9, (2, 16, 16), generator=torch.Generator().manual_seed(0))
    target[:, :2] = 255
    ignored = gradient_by_pixel(fine_tuning.Config(ignore_background=True), target)
    assert torch.equal(ignored > 0, (target > 0) & (target < 255))
    plain = gradient_by_pixel(fine_tuning.Config(), target)
    assert torch.equal(plain > 0, target < 255)


def test_oracle_labels_name_earlier_classes_in_the_new_images(
    data: LocalSplit, parent: Path, tmp_path: Path, monkeypatch
):
    """The images and their order are the same; background is now labelled with earlier classes."""
    seen: dict[str, list[Batch]] = {"new": [], "seen": []}
    forward = fine_tuning.Method.forward
    for labels, batches in seen.items():

        def recorded(
            self: fine_tuning.Method, batch: Batch, progress: Progress, batches=batches
        ) -> dict[str, Tensor]:
            batches.append(batch)
            return forward(self, batch, progress)

        monkeypatch.setattr(fine_tuning.Method, "forward", recorded)
        trained(data, fine_tuning.Config(), tmp_path / labels, parent, labels=labels)
    plain = torch.cat([batch.masks for batch in seen["new"]])
    oracle = torch.cat([batch.masks for batch in seen["seen"]])
    plain_pixels = torch.cat([batch.pixels for batch in seen["new"]])
    oracle_pixels = torch.cat([batch.pixels for batch in seen["seen"]])
    assert torch.equal(plain_pixels, oracle_pixels)
    assert set(plain.unique().tolist()) == {0, 7, 8}
    assert torch.equal(torch.where(oracle < 7, 0, oracle), plain)
    assert set(oracle.unique().tolist()) & {1, 2, 3, 4, 5, 6}
