"""Check gradients that are written by hand against differences and automatic differentiation."""

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss
from torch.testing import assert_close

from tests.support.losses import learnable, random_batch
from training import losses
from training.config import VOID
from training.fused_losses import binary_cross_entropy_sum, mean_square, unbiased_sums

ALPHA = 0.7


def one_hot_sum(logits: Tensor, target: Tensor) -> Tensor:
    """Return the binary cross-entropy as its definition has it."""
    channels = torch.arange(logits.shape[1]).view(1, -1, 1, 1)
    wanted = (target[:, None] == channels).to(logits.dtype)
    pixels = binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return (pixels * (target != VOID)[:, None]).sum()


def gradient(loss: Tensor, logits: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, logits)
    return found


def test_the_gradients_are_those_of_differences() -> None:
    logits, target = random_batch(seed=1, size=2)
    logits = learnable(logits[:, :, :3, :3])
    target = target[:, :3, :3].contiguous()
    previous = torch.randn(2, 3, 3, 3).double()
    assert torch.autograd.gradcheck(binary_cross_entropy_sum, (logits, target))
    both = partial(unbiased_sums, alpha=ALPHA)
    assert torch.autograd.gradcheck(both, (logits, target, previous))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0, 2000.0])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_binary_cross_entropy_is_that_of_one_hot_masks(
    scale: float, layout: torch.memory_format
) -> None:
    logits, target = random_batch(seed=2)
    logits = learnable((scale * logits).to(memory_format=layout))
    found, expected = binary_cross_entropy_sum(logits, target), one_hot_sum(logits, target)
    assert_close(found, expected, rtol=1e-14, atol=0)
    assert_close(gradient(found, logits), gradient(expected, logits), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0, 2000.0])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_both_losses_together_are_both_losses_one_by_one(
    scale: float, layout: torch.memory_format
) -> None:
    """At the large scales no channel's exponential is left of another's."""
    logits, target = random_batch(seed=3)
    logits = learnable((scale * logits).to(memory_format=layout))
    previous = scale * torch.randn(4, 3, 6, 7).double()
    labelled = (target != VOID).sum()
    hard, soft = unbiased_sums(logits, target, previous, ALPHA)
    one = losses.unbiased_cross_entropy(logits, target, 3) * labelled
    other = losses.unbiased_distillation(logits, previous, ALPHA) * previous.numel()
    assert_close((hard, soft), (one, other), rtol=1e-13, atol=0)
    for found, expected in ((hard, one), (soft, other), (2 * hard + 3 * soft, 2 * one + 3 * other)):
        kept = torch.autograd.grad(found, logits, retain_graph=True)
        wanted = torch.autograd.grad(expected, logits, retain_graph=True)
        assert_close(kept, wanted, rtol=1e-13, atol=1e-14 * max(scale, 1))


def test_float32_is_as_exact_as_the_losses_one_by_one() -> None:
    logits, target = random_batch(seed=4)
    previous = torch.roll(logits, 1, 0)[:, :3]
    exact = unbiased_sums(logits, target, previous, ALPHA)
    rounded = unbiased_sums(logits.float(), target, previous.float(), ALPHA)
    assert_close([loss.double() for loss in rounded], list(exact), rtol=1e-6, atol=0)


def test_the_mean_square_of_half_precision_is_taken_in_float32() -> None:
    features = learnable(torch.randn(2, 3, 4, 4).bfloat16())
    constant = torch.randn(2, 3, 4, 4).bfloat16()
    found = mean_square(features, constant)
    exact = learnable(features.detach().float())
    expected = mse_loss(exact, constant.float())
    assert found.dtype == torch.float32
    assert_close(found, expected, rtol=0, atol=0)
    assert torch.equal(gradient(found, features), gradient(expected, exact).bfloat16())


def test_the_mean_square_of_full_precision_is_torchs() -> None:
    features, constant = learnable(torch.randn(2, 3).double()), torch.randn(2, 3).double()
    assert torch.equal(mean_square(features, constant), mse_loss(features, constant))
