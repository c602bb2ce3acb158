"""Check LwF-MC's losses against NumPy."""

import pytest

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
from training.methods import lwf_mc


def test_it_learns_every_channel_and_distils_the_previous_ones() -> None:
    document = build_step(lwf_mc.Config(distillation_weight=3))
    method = build_method(document)
    batch = build_batch(document)
    losses = method(batch, START)
    now, before = image_logits(method, batch.images)
    labels = bce(now, one_hot(batch.masks, 6)).sum(1).mean()
    distilled = 3 * bce(now[:, :4], sigmoid(before)).sum(1).mean()
    assert losses["segmentation"].item() == pytest.approx(labels)
    assert losses["distillation"].item() == pytest.approx(distilled)
