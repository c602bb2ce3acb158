"""Check that ILT is LwF with a distillation of the encoder's features."""

import torch

from tests.support.methods import START, build_batch, build_method, build_step
from training.methods import ilt, lwf


def test_it_is_lwf_and_a_distillation_of_the_features() -> None:
    document = build_step(ilt.Config(encoder_distillation=7))
    batch = build_batch(document)
    method, plain = build_method(document), build_method(build_step(lwf.Config()))
    # The models must differ from the previous ones, or the distillation is 0.
    with torch.no_grad():
        for model in (method.model, plain.model):
            next(model.encoder.parameters()).mul_(1.5)
    losses, expected = method(batch, START), plain(batch, START)
    assert {name: losses[name] for name in expected} == expected
    now = method.model(batch.images).features
    before = method.previous(batch.images).features
    torch.testing.assert_close(losses["encoder"], 7 * (now - before).square().mean())
    assert losses["encoder"] > 0
