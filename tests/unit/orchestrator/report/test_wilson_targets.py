"""Test that a WILSON step's targets are computed as its training does."""

from typing import Literal

import numpy as np
import pytest
import torch

from orchestrator.report.wilson_targets import has_localizer, known_labels, load_method, weak_view
from training.checkpoint import save_model
from training.config import Augmentation, ModelConfig, Optimization, Task
from training.methods import fine_tuning, wilson
from training.models.segmenter import normalise, upsample
from training.pseudo_labels import keep_labelled, pseudo_supervision
from training.step_config import StepConfig

MODEL = ModelConfig(encoder="tiny", output_stride=4, head_channels=8, eval_pooling=4)


def step(
    groups: tuple[tuple[int, ...], ...], method, labels: Literal["new", "seen"] = "new"
) -> StepConfig:
    weak = len(groups) > 1
    task = Task(
        data="d",
        groups=groups,
        selection="s",
        images=4,
        supervision="image" if weak else "pixel",
        labels=labels,
    )
    return StepConfig(
        task=task,
        method=method,
        model=MODEL,
        optimization=Optimization(),
        augmentation=Augmentation(),
    )


@pytest.fixture
def published(tmp_path):
    """Return a WILSON step's method, saved as it is published, and read back."""
    torch.manual_seed(0)
    base = fine_tuning.Method(step(((7, 3),), fine_tuning.Config(loss="bce")))
    save_model(tmp_path / "base", base, [])
    config = step(((7, 3), (5, 2)), wilson.Config(localizer_channels=8, alpha=0.5))
    trained = wilson.Method(config, base.model.eval())
    save_model(tmp_path / "step", trained, [])
    return trained.eval(), load_method(config, tmp_path / "step", tmp_path / "base")


def test_the_method_is_read_back_whole(published) -> None:
    trained, found = published
    for name, value in trained.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value)
    assert has_localizer(found.step)
    assert not has_localizer(step(((7, 3),), fine_tuning.Config()))


def test_maps_are_the_likeliest_of_what_training_uses(published) -> None:
    trained, found = published
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 32, 48), np.uint8))
    mask = torch.zeros(32, 48, dtype=torch.uint8)
    mask[4:9, 4:9] = 2
    mask[20:30, 20:30] = 7
    view = weak_view(found, pixels, mask)
    # The channels are those of classes 7, 3, 5 and 2, and of the new ones the image has class 2.
    labels = torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    with torch.no_grad():
        images = normalise(pixels[None])
        before = trained.previous(images).logits
        scores = trained.localizer(trained.model(images).features)
        target, _ = pseudo_supervision(scores, before, labels, 0.5)
        confidence = keep_labelled(scores.softmax(1), labels)
    ids = np.array([0, 7, 3, 5, 2], np.uint8)
    assert np.array_equal(view.localizer, ids[upsample(confidence, (32, 48)).argmax(1)[0].numpy()])
    assert np.array_equal(view.supervision, ids[upsample(target, (32, 48)).argmax(1)[0].numpy()])
    assert set(np.unique(view.localizer)) <= {0, 2}
    assert view.localizer.dtype == np.uint8


def test_labels_are_those_that_the_step_may_know() -> None:
    mask = torch.tensor([[0, 7, 255], [2, 2, 9]], dtype=torch.uint8)
    groups = ((7, 3), (5, 2))
    assert known_labels(step(groups, wilson.Config()).task, mask).tolist() == [[0, 0, 0, 1]]
    assert known_labels(step(groups, wilson.Config(), labels="seen").task, mask).tolist() == [
        [1, 0, 0, 1]
    ]
