"""PLOP as a method: its thresholds, its loss against the published code's, and each of its parts switched off."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from tests.support.paths import GOLDEN
from training.checkpoint import freeze
from training.config import Augmentation, ModelConfig, Optimization, StepConfig, Task
from training.methods import base, plop
from training.models.segmenter import Segmenter, normalise, upsample
from training.pod import pod_loss
from training.pseudo_labels import entropy, median_thresholds
from training.scenario import label_map

PLOP = GOLDEN / "plop.npz"
MODEL = ModelConfig(encoder="tiny", output_stride=4, head_channels=8, eval_pooling=8)
PROGRESS = base.Progress(0, 100, 10)


def build(groups: tuple[tuple[int, ...], ...] = ((1, 2, 3), (4, 5)), **fields: Any) -> plop.Method:
    task = Task(data="d", groups=groups, selection="s", images=8, supervision="pixel")
    config, optimization = (
        plop.Config(**fields),
        Optimization(epochs=10, batch=4, precision="float64"),
    )
    step = StepConfig(
        task=task,
        method=config,
        model=MODEL,
        optimization=optimization,
        augmentation=Augmentation(crop=32),
    )
    torch.manual_seed(1)
    previous = freeze(Segmenter(MODEL, task.channels[:-1]).double())
    previous.classifiers[0].weight.data *= 30  # sure here, unsure there
    return plop.Method(step, previous).double().train()


def batches(method: plop.Method, count: int = 2) -> list[base.Batch]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(count):
        pixels = torch.randint(0, 256, (4, 3, 32, 32), generator=generator, dtype=torch.uint8)
        masks = torch.from_numpy(label_map(method.step.task))[
            torch.randint(0, 6, (4, 32, 32), generator=generator)
        ].long()
        masks[:, :3] = 255
        made.append(
            base.Batch(pixels, normalise(pixels, torch.float64), masks, torch.zeros(4, 5).double())
        )
    return made


def prepared(**fields: Any) -> plop.Method:
    method = build(**fields)
    method.prepare(lambda: batches(method))
    return method


def test_thresholds_are_the_medians_over_the_background_of_the_step_s_images() -> None:
    method = prepared()
    unsure, predicted = [], []
    for batch in batches(method):
        logits = upsample(method.previous(batch.images).logits, (32, 32))
        unsure.append(entropy(logits, 6)[batch.masks == 0])
        predicted.append(logits.argmax(1)[batch.masks == 0])
    unsure, predicted = torch.cat(unsure), torch.cat(predicted)
    found = 0
    for channel in predicted.unique().tolist():
        median = max(np.median(unsure[predicted == channel].numpy()), 0.001)
        assert method.thresholds[channel].item() == pytest.approx(median, abs=0.01)
        found += 1
    assert found > 1
    assert method.state_dict()["thresholds"].count_nonzero() == len(method.thresholds), (
        "a checkpoint holds them"
    )
    assert (prepared(least_threshold=0.5).thresholds == 0.5).all()
    assert (prepared(pseudo_labels=False).thresholds == 0).all()


def test_thresholds_as_published(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(
        "training.methods.plop.median_thresholds",
        lambda histogram, least, published: (
            asked.append(published),
            median_thresholds(histogram, least, published),
        )[1],
    )
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


def test_levels_are_kept_alike_with_their_weights() -> None:
    method = prepared(pod_weight=0.3, pod_logits_weight=0.7)
    (batch, _) = batches(method)
    now, before = method.model.with_stages(batch.images), method.previous.with_stages(batch.images)
    levels, previous = [
        [*stages, outputs.head, outputs.logits] for outputs, stages in (now, before)
    ]
    assert len(levels) == 4
    assert_close(
        method(batch, PROGRESS)["distillation"], pod_loss(levels, previous, [0.3, 0.3, 0.3, 0.7])
    )


def test_parts_can_be_switched_off() -> None:
    method = prepared()
    (batch, _) = batches(method)
    whole = method(batch, PROGRESS)
    without_labels = prepared(pseudo_labels=False)
    logits = upsample(without_labels.model(batch.images).logits, (32, 32))
    losses = without_labels(batch, PROGRESS)
    assert_close(
        losses["segmentation"],
        F.cross_entropy(logits, batch.masks, ignore_index=255, reduction="sum") / 4 / 32**2,
    )
    assert torch.equal(losses["distillation"], whole["distillation"])
    unweighted = prepared(adaptive_weight=False)(batch, PROGRESS)
    assert unweighted["segmentation"] > whole["segmentation"]
    assert prepared(pod_weight=0, pod_logits_weight=0)(batch, PROGRESS)["distillation"] == 0
    plain = prepared(background_initialisation=False)
    for one, shares in ((method, True), (plain, False)):
        assert (
            torch.allclose(
                one.model.classifiers[1].weight[0], one.previous.classifiers[0].weight[0]
            )
            == shares
        )
        assert (
            torch.allclose(one.model.classifiers[0].bias, one.previous.classifiers[0].bias)
            != shares
        )


def test_every_parameter_learns_and_the_previous_model_does_not() -> None:
    method = prepared()
    torch.stack(list(method(batches(method)[0], PROGRESS).values())).sum().backward()
    assert all(
        parameter.grad is not None and parameter.grad.isfinite().all()
        for parameter in method.parameters()
    )
    assert all(parameter.grad is None for parameter in method.previous.parameters())
