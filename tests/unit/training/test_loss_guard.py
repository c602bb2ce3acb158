"""A loss that is not finite raises at once on a CPU, and at the next check on a GPU."""

import pytest
import torch
from torch import Tensor

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


def test_a_gpu_reads_nothing_until_the_check_which_names_the_first_bad_iteration(
    monkeypatch: pytest.MonkeyPatch,
):
    guard = LossGuard(Runtime(), total=9)
    monkeypatch.setattr(guard, "_reads_at_once", False)
    guard.watch(FINITE, 1)
    guard.check({})
    guard.watch(with_one(float("nan")), 2)
    guard.watch(FINITE, 3)
    guard.watch(with_one(float("inf")), 4)
    with pytest.raises(FloatingPointError, match=r"'one': nan.* at iteration 2 of 9"):
        guard.check({"one": float("nan")})
