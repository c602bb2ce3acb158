"""Check iCaRL's loss and its three targets of background against NumPy."""

from typing import Literal

import numpy as np
import pytest
import torch

from tests.support.methods import (
    START,
    bce,
    build_batch,
    build_method,
    build_step,
    image_logits,
    one_hot,
    sigmoid,
)
from training.methods import icarl


@pytest.mark.parametrize("background", ["smaller", "previous", "mask"])
def test_it_learns_new_classes_from_masks_and_previous_ones_from_the_previous_model(
    background: Literal["smaller", "previous", "mask"],
) -> None:
    document = build_step(icarl.Config(background=background))
    method = build_method(document)
    batch = build_batch(document)
    batch.masks[:, :5] = 255
    now, before = image_logits(method, batch.images)
    wanted = one_hot(batch.masks, 6)
    previous = sigmoid(before)
    choice = {
        "smaller": np.minimum(wanted[:, 0], previous[:, 0]),
        "previous": previous[:, 0],
        "mask": wanted[:, 0],
    }[background]
    wanted[:, 1:4] = previous[:, 1:]
    # At unlabelled pixels the previous model gives the target.
    wanted[:, 0] = np.where(batch.masks.numpy() == 255, previous[:, 0], choice)
    loss = method(batch, START)["segmentation"]
    assert loss.item() == pytest.approx(bce(now, wanted).sum(1).mean())


def test_the_encoders_distillation_is_the_squared_change_of_the_features() -> None:
    method = build_method(build_step(icarl.Config(encoder_distillation=2)))
    batch = build_batch(method.step)
    now, before = method.model(batch.images).features, method.previous(batch.images).features
    losses = method(batch, START)
    assert losses["encoder"].item() == pytest.approx(2 * (now - before).square().mean().item())
    plain = build_method(build_step(icarl.Config()))(batch, START)
    assert set(plain) == {"segmentation"}
    assert torch.equal(plain["segmentation"], losses["segmentation"])
