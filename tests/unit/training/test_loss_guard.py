"""A loss that is not finite raises at once on a CPU, and never reaches the weights on a GPU."""

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from training.loss_guard import LossGuard
from training.runtime import Runtime

FINITE = {"one": torch.tensor(1.0), "two": torch.tensor(0.5)}


def with_one(value: float) -> dict[str, Tensor]:
    return FINITE | {"one": torch.tensor(value)}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_cpu_raises_at_once_and_names_the_loss(value: float):
    guard = LossGuard(Runtime(), total=9)
    guard.watch(FINITE, 1)
    with pytest.raises(FloatingPointError, match=rf"'one': {value}.* at iteration 2 of 9: lower"):
        guard.watch(with_one(value), 2)


def test_losses_that_cancel_each_other_are_found():
    guard = LossGuard(Runtime(), total=9)
    infinite = torch.tensor(float("inf"))
    with pytest.raises(FloatingPointError):
        guard.watch({"one": infinite, "two": -infinite}, 1)


def test_a_gpu_keeps_the_weights_finite_until_the_loss_is_read(monkeypatch: pytest.MonkeyPatch):
    """Nothing is read until `check`, which names the first bad iteration and not the last."""
    guard = LossGuard(Runtime(), total=9)
    monkeypatch.setattr(guard, "_reads_at_once", False)
    parameter, unused = Parameter(torch.ones(2)), Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter, unused], lr=0.1, momentum=0.9)

    def update(iteration: int, losses: dict[str, Tensor], gradient: float) -> None:
        parameter.grad = torch.full((2,), gradient)
        guard.watch(losses, iteration)
        guard.protect([parameter, unused])
        optimizer.step()

    update(1, FINITE, 1.0)
    guard.check({})
    torch.testing.assert_close(parameter.detach(), torch.full((2,), 0.9))
    update(2, with_one(float("nan")), float("nan"))
    update(3, FINITE, 1.0)
    assert parameter.isfinite().all()
    with pytest.raises(FloatingPointError, match=r"'one': nan.* at iteration 2 of 9"):
        guard.check({"one": float("nan")})
