"""Check PLOP's thresholds, its loss against the published code's, and its parts one by one."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from tests.support.paths import GOLDEN
from training.checkpoint import freeze
from training.config import Augmentation, ModelConfig, Optimization, Task
from training.methods import base, plop
from training.models.segmenter import Segmenter, normalise, upsample
from training.pod import pod_loss
from training.pseudo_labels import entropy, median_thresholds
from training.scenario import label_map
from training.step_config import StepConfig

PLOP = GOLDEN / "plop.npz"
MODEL = ModelConfig(encoder="tiny", output_stride=4, head_channels=8, eval_pooling=8)
PROGRESS = base.Progress(0, 100, 10)


def build(groups: tuple[tuple[int, ...], ...] = ((1, 2, 3), (4, 5)), **fields: Any) -> plop.Method:
    task = Task(data="d", groups=groups, selection="s", images=8, supervision="pixel")
    step = StepConfig(
        task=task,
        method=plop.Config(**fields),
        model=MODEL,
        optimization=Optimization(epochs=10, batch=4, precision="float64"),
        augmentation=Augmentation(crop=32),
    )
    torch.manual_seed(1)
    previous = freeze(Segmenter(MODEL, task.channels[:-1]).double())
    # Larger logits give pixels of low and of high entropy.
    previous.get_parameter("classifiers.0.weight").data *= 30
    return plop.Method(step, previous).double().train()


def batches(method: plop.Method, count: int = 2) -> list[base.Batch]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(count):
        pixels = torch.randint(0, 256, (4, 3, 32, 32), generator=generator, dtype=torch.uint8)
        classes = torch.randint(0, 6, (4, 32, 32), generator=generator)
        masks = torch.from_numpy(label_map(method.step.task))[classes].long()
        masks[:, :3] = 255
        images = normalise(pixels, torch.float64)
        made.append(base.Batch(pixels, images, masks, torch.zeros(4, 5).double()))
    return made


def prepared(**fields: Any) -> plop.Method:
    method = build(**fields)
    method.prepare(lambda: batches(method))
    return method


def test_thresholds_are_the_medians_over_the_background_of_the_step_s_images() -> None:
    method = prepared()
    parts = []
    for batch in batches(method):
        logits = upsample(method.previous(batch.images).logits, (32, 32))
        background = batch.masks == 0
        parts.append((entropy(logits, 6)[background], logits.argmax(1)[background]))
    entropies = torch.cat([part for part, _ in parts])
    predicted = torch.cat([part for _, part in parts])
    found = 0
    for channel in predicted.unique().tolist():
        median = max(np.median(entropies[predicted == channel].numpy()), 0.001)
        assert method.thresholds[channel].item() == pytest.approx(median, abs=0.01)
        found += 1
    assert found > 1
    # A checkpoint holds them.
    assert method.state_dict()["thresholds"].count_nonzero() == len(method.thresholds)
    assert (prepared(least_threshold=0.5).thresholds == 0.5).all()
    assert (prepared(pseudo_labels=False).thresholds == 0).all()


def test_thresholds_as_published(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def recorded(histogram: Tensor, least: float, published: bool) -> Tensor:
        asked.append(published)
        return median_thresholds(histogram, least, published)

    monkeypatch.setattr("training.methods.plop.median_thresholds", recorded)
    prepared()
    prepared(published_median=True)
    assert asked == [False, True]


def test_the_classification_agrees_with_the_published_code() -> None:
    with np.load(PLOP) as arrays:
        z = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    method = build(groups=((1, 2, 3), (4, 5, 6)))
    method.thresholds.copy_(z["in.entropy_thresholds"])
    logits = z["in.logits"].requires_grad_()
    loss = method.segmentation(logits, z["in.previous_logits"], z["in.target"])
    loss.backward()
    # The published code counts the pixels that weigh an image in float32.
    assert_close(loss.detach(), z["out.classification_loss"], rtol=1e-8, atol=0)
    gradient = z["out.classification_loss.grad_logits"]
    assert_close(logits.grad, gradient, rtol=1e-8, atol=1e-8 * gradient.abs().max().item())


def test_levels_are_distilled_with_their_weights() -> None:
    method = prepared(pod_weight=0.3, pod_logits_weight=0.7)
    (batch, _) = batches(method)
    now, before = method.model.with_stages(batch.images), method.previous.with_stages(batch.images)
    levels, previous = [
        [*stages, outputs.head, outputs.logits] for outputs, stages in (now, before)
    ]
    assert len(levels) == 4
    expected = pod_loss(levels, previous, [0.3, 0.3, 0.3, 0.7])
    assert_close(method(batch, PROGRESS)["distillation"], expected)


def test_parts_can_be_switched_off() -> None:
    method = prepared()
    (batch, _) = batches(method)
    whole = method(batch, PROGRESS)
    without_labels = prepared(pseudo_labels=False)
    logits = upsample(without_labels.model(batch.images).logits, (32, 32))
    losses = without_labels(batch, PROGRESS)
    total = F.cross_entropy(logits, batch.masks, ignore_index=255, reduction="sum")
    assert_close(losses["segmentation"], total / 4 / 32**2)
    assert torch.equal(losses["distillation"], whole["distillation"])
    unweighted = prepared(adaptive_weight=False)(batch, PROGRESS)
    assert unweighted["segmentation"] > whole["segmentation"]
    assert prepared(pod_weight=0, pod_logits_weight=0)(batch, PROGRESS)["distillation"] == 0
    plain = prepared(background_initialisation=False)
    for one, shares in ((method, True), (plain, False)):
        old, new = one.previous.get_parameter, one.model.get_parameter
        background, classes = old("classifiers.0.weight")[0], new("classifiers.1.weight")
        assert torch.allclose(classes[0], background) == shares
        assert torch.allclose(new("classifiers.0.bias"), old("classifiers.0.bias")) != shares


def test_every_parameter_learns_and_the_previous_model_does_not() -> None:
    method = prepared()
    torch.stack(list(method(batches(method)[0], PROGRESS).values())).sum().backward()
    for parameter in method.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    assert all(parameter.grad is None for parameter in method.previous.parameters())
