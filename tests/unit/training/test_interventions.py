"""What takes away a cause of forgetting takes away just that: frozen parts, ignored background, labels of earlier classes."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.support.datasets import build_dataset, open_split
from training.checkpoint import freeze, load_model
from training.config import Augmentation, MethodConfig, ModelConfig, Optimization, StepConfig, Task
from training.data.digits import Digits
from training.data.shards import LocalSplit
from training.fit import fit
from training.journal import MemoryJournal
from training.methods import fine_tuning, retraining
from training.methods.base import Batch, Progress
from training.models.segmenter import Segmenter, normalise
from training.runtime import Runtime
from training.scenario import select_images

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
    """The published folder of the first step, or with a parent of the second."""
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
        method=method,
        model=MODEL,
        optimization=Optimization.model_validate({"epochs": 1, "batch": 4} | optimization),
        augmentation=Augmentation(crop=32, scale=(0.99, 1)),
    )
    places = {"parent": parent, "encoder_weights": None, "folder": folder, "resume": None}
    return fit(step, data, rows, Runtime(log_every=1), **places, journal=MemoryJournal())


@pytest.fixture(scope="module")
def parent(data: LocalSplit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(data, fine_tuning.Config(), tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def later(data: LocalSplit, parent: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(data, fine_tuning.Config(), tmp_path_factory.mktemp("later"), parent)


def parts(folder: Path) -> dict[str, dict[str, Tensor]]:
    """A model's entries by what they are: encoder and decoder, weights and statistics."""
    state = load_model(folder)[0].state_dict()
    found: dict[str, dict[str, Tensor]] = {
        f"{a} {b}": {} for a in ("encoder", "decoder") for b in ("weights", "statistics")
    }
    for name, value in state.items():
        place = "encoder" if name.startswith("encoder.") else "decoder"
        found[f"{place} {'statistics' if 'running' in name else 'weights'}"][name] = value
    return found


def changed(before: Path, after: Path) -> set[str]:
    """The parts in which all that both models have differs, or some of it."""
    first, second = parts(before), parts(after)
    return {
        name
        for name in first
        if any(not torch.equal(value, second[name][key]) for key, value in first[name].items())
    }


@pytest.mark.parametrize(
    ("frozen", "moves"),
    [
        (
            "nothing",
            {"encoder weights", "encoder statistics", "decoder weights", "decoder statistics"},
        ),
        ("statistics", {"encoder weights", "decoder weights"}),
        ("encoder", {"decoder weights", "decoder statistics"}),
    ],
)
def test_what_is_frozen_stays_and_the_rest_moves(
    data: LocalSplit, parent: Path, tmp_path: Path, frozen: str, moves: set[str]
):
    assert (
        changed(
            parent, trained(data, fine_tuning.Config(), tmp_path / "step", parent, frozen=frozen)
        )
        == moves
    )


@pytest.mark.parametrize(
    ("part", "moves"),
    [("classifier", {"decoder weights"}), ("decoder", {"decoder weights", "decoder statistics"})],
)
def test_retraining_keeps_what_lies_before(
    data: LocalSplit, later: Path, tmp_path: Path, part: Any, moves: set[str]
):
    step = trained(data, retraining.Config(part=part), tmp_path / "anew", later, labels="seen")
    assert changed(later, step) == moves
    head = {
        name: value
        for name, value in parts(later)["decoder weights"].items()
        if name.startswith("head.")
    }
    assert head
    kept = all(
        torch.equal(value, parts(step)["decoder weights"][name]) for name, value in head.items()
    )
    assert kept == (part == "classifier")


def test_retraining_forgets_the_old_classifier(data: LocalSplit, later: Path, tmp_path: Path):
    """Whatever the later model's classifiers said, the new ones start from the same random weights."""
    other = shutil.copytree(later, tmp_path / "other")
    state = {
        name: value + 3 * name.startswith("classifiers.")
        for name, value in load_file(later / "model.safetensors").items()
    }
    save_file(state, other / "model.safetensors")
    assert changed(later, other) == {"decoder weights"}
    first, second = (
        trained(data, retraining.Config(), tmp_path / folder.name / "anew", folder, labels="seen")
        for folder in (later, other)
    )
    assert changed(first, second) == set()


def gradient_by_pixel(config: fine_tuning.Config, target: Tensor) -> Tensor:
    """How much the loss pulls at each pixel's logits: sum of sizes over channels, [B, H, W]."""
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
    logits = torch.randn(
        *target.shape[:1],
        task.channels[0] + task.channels[1],
        *target.shape[1:],
        requires_grad=True,
    )
    pixels = torch.zeros(*target.shape[:1], 3, *target.shape[1:], dtype=torch.uint8)
    method.outputs = lambda images: method.model(images)._replace(logits=logits)
    loss = method(Batch(pixels, normalise(pixels), target, torch.zeros(1)), Progress(0, 10, 5))[
        "segmentation"
    ]
    (gradient,) = torch.autograd.grad(loss, logits)
    return gradient.abs().sum(1)


def test_ignored_background_pulls_at_nothing():
    target = torch.randint(0, 9, (2, 16, 16), generator=torch.Generator().manual_seed(0))
    target[:, :2] = 255
    ignored = gradient_by_pixel(fine_tuning.Config(ignore_background=True), target)
    assert torch.equal(ignored > 0, (target > 0) & (target < 255))
    plain = gradient_by_pixel(fine_tuning.Config(), target)
    assert torch.equal(plain > 0, target < 255)


def test_oracle_labels_name_earlier_classes_in_the_new_images(
    data: LocalSplit, parent: Path, tmp_path: Path, monkeypatch
):
    """The same images in the same order; what was background now says which earlier class it is."""
    seen: dict[str, list[Batch]] = {"new": [], "seen": []}
    forward = fine_tuning.Method.forward
    for labels, batches in seen.items():

        def noted(
            self: fine_tuning.Method, batch: Batch, progress: Progress, batches=batches
        ) -> dict[str, Tensor]:
            batches.append(batch)
            return forward(self, batch, progress)

        monkeypatch.setattr(fine_tuning.Method, "forward", noted)
        trained(data, fine_tuning.Config(), tmp_path / labels, parent, labels=labels)
    plain, oracle = (
        torch.cat([batch.masks for batch in seen[labels]]) for labels in ("new", "seen")
    )
    assert torch.equal(
        *(torch.cat([batch.pixels for batch in seen[labels]]) for labels in ("new", "seen"))
    )
    assert set(plain.unique().tolist()) == {0, 7, 8}
    assert torch.equal(torch.where(oracle < 7, 0, oracle), plain)
    assert set(oracle.unique().tolist()) & {1, 2, 3, 4, 5, 6}
