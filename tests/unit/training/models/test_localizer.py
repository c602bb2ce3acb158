"""The localizer's two passes are those of evaluation and training, in this order."""

from copy import deepcopy

import torch
from torch import Tensor
from torch.testing import assert_close

from training.models.localizer import Localizer


def localizer() -> Localizer:
    torch.manual_seed(0)
    return Localizer(in_channels=6, channels=4, classes=3).double().train()


def features() -> Tensor:
    return torch.randn(2, 6, 5, 5).double().requires_grad_()


def test_targets_come_from_evaluation_mode_before_the_training_pass() -> None:
    together, apart = localizer(), localizer()
    maps = features()
    for _ in range(2):
        scores, targets = together.with_targets(maps)
        with torch.no_grad():
            expected = deepcopy(apart).eval()(maps)
        assert_close(targets, expected, rtol=0, atol=1e-12)
        assert not targets.requires_grad
        wanted = apart(maps)
        assert_close(scores, wanted, rtol=0, atol=0)
        assert_close(
            torch.autograd.grad(scores.square().sum(), maps),
            torch.autograd.grad(wanted.square().sum(), maps),
            rtol=0,
            atol=1e-12,
        )
    assert_close(together.state_dict(), apart.state_dict(), rtol=0, atol=0)
    assert all(module.training for module in together.modules())


def test_the_first_convolution_runs_once_for_both_passes() -> None:
    calls: list[int] = []
    network = localizer()
    network.body[0].register_forward_hook(lambda *arguments: calls.append(1))
    network.with_targets(features())
    assert len(calls) == 1
