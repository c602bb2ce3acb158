"""Check how MiB's classifier starts, and that its parts can be switched off."""

import torch

from tests.support.methods import START, build_batch, build_method, build_step
from training.methods import lwf, mib


def test_the_background_is_shared_with_the_new_classes() -> None:
    document = build_step(mib.Config())
    method = build_method(document).eval()
    images = build_batch(document).images
    now, before = method.model(images).logits, method.previous(images).logits
    shares = torch.cat([now[:, :1], now[:, 4:]], 1)
    torch.testing.assert_close(shares.logsumexp(1), before[:, 0])
    torch.testing.assert_close(shares[:, 0], shares[:, 2])


def test_without_its_parts_it_is_lwf() -> None:
    config = mib.Config(
        distillation_weight=100,
        unbiased_cross_entropy=False,
        unbiased_distillation=False,
        background_initialisation=False,
    )
    document = build_step(config)
    losses = build_method(document)(build_batch(document), START)
    expected = build_method(build_step(lwf.Config()))(build_batch(document), START)
    for name, loss in expected.items():
        torch.testing.assert_close(losses[name], loss)
