"""Check the labels that a layer gives, and the loss to them, on small cases."""

import numpy as np
import torch
from torch import Tensor

from tests.support.methods import (
    LATER,
    bce,
    build_batch,
    build_method,
    build_step,
    image_logits,
    one_hot,
    sigmoid,
)
from training.methods import base, offline_layer

CONFIG = offline_layer.Config(layer="sam")


def batch(values: Tensor, method: base.Method) -> base.Batch:
    return build_batch(method.step)._replace(layers={"sam": values.int()})


def test_image_labels_have_the_last_word_and_void_says_nothing() -> None:
    method = build_method(build_step(CONFIG))
    assert isinstance(method, offline_layer.Method)
    # Background, an old class, both new classes, void, and a class of a later step.
    values = torch.tensor([0, 2, 4, 5, 255, 7]).expand(4, 1, 6)
    assert method.labels(batch(values, method)).flatten(1).tolist() == [
        [0, 0, 4, 0, 255, 0],
        [0, 0, 0, 5, 255, 0],
        [0, 0, 4, 5, 255, 0],
        [0, 0, 4, 0, 255, 0],
    ]


def test_the_loss_is_wilsons_to_hard_labels_and_void_teaches_no_new_class() -> None:
    method = build_method(build_step(CONFIG)).eval()
    assert isinstance(method, offline_layer.Method)
    values = torch.randint(0, 6, (4, 32, 32), generator=torch.Generator().manual_seed(3))
    values[:, :4] = 255
    sample = batch(values, method)
    now, before = image_logits(method, sample.images)
    labels = method.labels(sample)
    wanted = one_hot(labels, 6)
    before = sigmoid(before)
    silent = (labels == 255).numpy()
    wanted[:, 0] = np.where(silent, before[:, 0], np.minimum(wanted[:, 0], before[:, 0]))
    wanted[:, 1:4] = before[:, 1:4]
    expected = bce(now, wanted).sum(1).mean()
    loss = method(sample, LATER)["segmentation"]
    np.testing.assert_allclose(loss.item(), expected, rtol=1e-9)
    values[:] = 255
    method.zero_grad()
    method(batch(values, method), LATER)["segmentation"].backward()
    newest = method.model.classifiers[-1].get_parameter("weight").grad
    assert newest is not None
    assert not newest.any()


def test_step_0_learns_the_labels_alone() -> None:
    method = build_method(build_step(CONFIG, ((1, 2, 3, 4, 5),))).eval()
    assert isinstance(method, offline_layer.Method)
    values = torch.randint(0, 6, (4, 32, 32), generator=torch.Generator().manual_seed(3))
    values[:, :4] = 255
    sample = batch(values, method)
    labels = method.labels(sample)
    with torch.no_grad():
        logits = torch.nn.functional.interpolate(
            method.model(sample.images).logits, (32, 32), mode="bilinear", align_corners=False
        )
    pixels = bce(logits.numpy(), one_hot(labels, 6)).sum(1)[(labels != 255).numpy()]
    found = method(sample, LATER)["segmentation"].item()
    np.testing.assert_allclose(found, pixels.mean(), rtol=1e-9)
