"""Check SSUL's labels, loss, frozen parts and start against slow direct computations."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from tests.support.methods import LATER, START, bce, build_batch, build_method, build_step, sigmoid
from training.config import MethodConfig
from training.iteration import build_optimizer, iterate, place
from training.loss_guard import LossGuard
from training.methods import base, fine_tuning, mib, ssul
from training.models.segmenter import upsample
from training.models.step_classifiers import join_unknown
from training.precision import autocast, gradient_scaler
from training.runtime import Runtime
from training.step_config import StepConfig

CPU = torch.device("cpu")
SALIENT = ssul.Config(saliency="salient")
OLD = 3  # classes of the previous model
UNKNOWN = 6  # the channel of unknown


def batch_of(document: StepConfig) -> base.Batch:
    """Return a batch with some void, and a layer in which a third of the pixels is salient."""
    batch = build_batch(document)
    batch.masks[0, :6] = 255
    saliency = torch.arange(batch.masks.numel()).view_as(batch.masks) % 3 == 0
    return batch._replace(layers={"salient": saliency.int() * 7})


def direct_labels(document: StepConfig, batch: base.Batch, previous: np.ndarray) -> np.ndarray:
    """Label each pixel by the rules, one pixel after another."""
    config = document.method
    assert isinstance(config, ssul.Config)
    labels = batch.masks.numpy().copy()
    for image, row, column in np.ndindex(labels.shape):
        label = labels[image, row, column]
        if label == 0 and config.saliency and batch.layers["salient"][image, row, column] > 0:
            label = UNKNOWN
        if label in (0, UNKNOWN) and config.pseudo_label_threshold is not None:
            p = sigmoid(previous[image, :, row, column])
            best = int(p.argmax())
            if 1 <= best <= OLD and p[best] >= config.pseudo_label_threshold:
                label = best
        labels[image, row, column] = label
    return labels


@pytest.mark.parametrize(
    "config",
    [
        SALIENT,
        ssul.Config(),
        ssul.Config(saliency="salient", pseudo_label_threshold=0.5),
        ssul.Config(saliency="salient", pseudo_label_threshold=None),
    ],
)
def test_the_loss_is_the_binary_cross_entropy_to_direct_labels(config: ssul.Config) -> None:
    document = build_step(config)
    method = build_method(document)
    with torch.no_grad():
        for layer in method.previous.last_layers:
            layer.weight *= 20  # so that it is sure of some classes
    place(method, CPU)
    batch = batch_of(document)
    size = batch.masks.shape[-2:]
    with torch.no_grad():
        logits, before = (
            upsample(model.scores(model(batch.images).head), size).numpy()
            for model in (method.model, method.previous)
        )
    labels = direct_labels(document, batch, before)
    changed = labels != batch.masks.numpy()
    assert changed.any()
    wanted = np.stack([labels == channel for channel in range(UNKNOWN + 1)], 1).astype(float)
    labelled = labels != 255
    total = (bce(logits, wanted).sum(1) * labelled).sum() / labelled.sum()
    assert method(batch, START)["segmentation"].item() == pytest.approx(total, rel=1e-9)


def updated(method: base.Method, document: StepConfig) -> base.Method:
    """Return the method after one update of its weights."""
    exact = autocast("float64", CPU), gradient_scaler("float64", CPU)
    optimizer = build_optimizer(method, CPU)
    guard = LossGuard(Runtime(), 100)
    iterate(method, method, optimizer, guard, batch_of(document), LATER, *exact)
    return method


def test_only_the_newest_classifier_unknown_and_a_little_background_move() -> None:
    document = build_step(SALIENT)
    method = place(build_method(document), CPU)
    before = {name: value.clone() for name, value in method.model.state_dict().items()}
    updated(method, document)
    moved = {
        name: float((value - before[name]).abs().max())
        for name, value in method.model.state_dict().items()
        if not torch.equal(value, before[name])
    }
    layers = ("body.0.weight", "scores.weight", "scores.bias")
    learning = [f"{head}.{layer}" for head in ("classifiers.1", "unknown") for layer in layers]
    slow = [f"background.{layer}" for layer in layers]
    assert set(moved) == {*learning, *slow}
    assert max(moved[name] for name in slow) < 1e-3 * max(moved[name] for name in learning)


def test_step_0_trains_everything() -> None:
    document = build_step(ssul.Config(saliency="salient"), groups=((1, 2, 3, 4, 5),))
    method = place(build_method(document), CPU)
    trained = {p for group in method.parameter_groups() for p in group["params"]}
    assert trained == set(method.parameters())
    before = {name: value.clone() for name, value in method.model.state_dict().items()}
    updated(method, document)
    kept = [n for n, v in method.model.state_dict().items() if torch.equal(v, before[n])]
    assert kept == []


def test_new_classes_start_as_unknown() -> None:
    method = build_method(build_step(SALIENT)).eval()
    with torch.no_grad():
        features = torch.randn(2, method.step.model.head_channels, 4, 4).double()
        scores = method.model.scores(features)
    for channel in (4, 5):
        torch.testing.assert_close(scores[:, channel], scores[:, UNKNOWN])
    assert not torch.allclose(scores[:, 0], scores[:, UNKNOWN])


def test_the_prediction_adds_unknown_to_background() -> None:
    logits = 3 * torch.randn(2, UNKNOWN + 1, 5, 5, dtype=torch.float64)
    p = sigmoid(logits.numpy())
    wanted = p[:, :-1].copy()
    wanted[:, 0] += p[:, -1]
    joined = join_unknown(logits)
    np.testing.assert_array_equal(joined.argmax(1), wanted.argmax(1))
    np.testing.assert_allclose(sigmoid(joined.numpy()), wanted.clip(max=1 - 1e-6), rtol=1e-9)


@pytest.mark.parametrize("sure", [12.0, 20.0, 80.0])
def test_background_wins_over_a_class_however_sure_where_the_sum_exceeds_1(sure: float) -> None:
    logits = torch.tensor([[5.0, sure, 0.0, 5.0], [5.0, sure, 0.0, -9.0]]).T.view(1, 4, 1, 2)
    joined = join_unknown(logits)
    # In the second pixel the sum is below 1, and below the class's probability.
    assert joined.argmax(1).flatten().tolist() == [0, 1]
    assert joined.isfinite().all()


def test_classes_start_rare_in_step_0_alone() -> None:
    rare = ssul.Config(initial_probability=0.01)
    method = build_method(build_step(rare, groups=((1, 2, 3, 4, 5),)))
    p = torch.cat([layer.get_parameter("bias") for layer in method.model.last_layers]).sigmoid()
    torch.testing.assert_close(p, torch.tensor([0.99, *[0.01] * 5]).double())
    with pytest.raises(ValidationError, match=r"later steps start as unknown's"):
        build_step(rare)


@pytest.mark.parametrize("method", [mib.Config(), fine_tuning.Config(), ssul.Config()])
def test_a_method_trains_classifiers_of_its_own_kind(method: MethodConfig) -> None:
    document = build_step(method)
    other = "pointwise" if method.name == "ssul" else "ssul"
    model = document.model.model_copy(update={"classifier": other})
    with pytest.raises(ValidationError, match=r"set model\.classifier to"):
        StepConfig.model_validate(dict(document) | {"model": model})


def test_half_of_the_batch_is_memory_where_there_is_one() -> None:
    document = build_step(SALIENT)
    assert document.kept_per_batch == 0
    task = document.task.model_copy(update={"memory": "m", "memory_images": 4})
    assert document.model_copy(update={"task": task}).kept_per_batch == 2


def test_half_precision_keeps_probabilities_near_1_apart() -> None:
    logits: Tensor = torch.tensor([9.0, 8.0, -20.0]).view(1, 3, 1, 1)
    assert join_unknown(logits.bfloat16()).dtype == torch.float32
    assert join_unknown(logits).argmax(1).item() == 0
