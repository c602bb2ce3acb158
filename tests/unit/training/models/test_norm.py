"""Norms are frozen or folded; `test_global_norm` has those that span several workers."""

import pytest
import torch
from torch import nn

from training.models.mobilenet import Depthwise
from training.models.norm import BatchNorm, convolve

CHANNELS = 3


def _lived_in(norm: BatchNorm) -> BatchNorm:
    generator = torch.Generator().manual_seed(1)
    for values, low in (
        (norm.weight, 0.5),
        (norm.bias, -1),
        (norm.running_mean, -1),
        (norm.running_var, 0.5),
    ):
        values.data.uniform_(low, 2, generator=generator)
    return norm.double()


def test_frozen_norm_keeps_its_statistics_whatever_train_says() -> None:
    norm = _lived_in(BatchNorm(CHANNELS, frozen=True))
    network = nn.Sequential(norm).train()
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    images = torch.randn(4, CHANNELS, 5, 5, dtype=torch.float64)
    output = network(images)
    torch.testing.assert_close(norm.state_dict(), before)
    torch.testing.assert_close(output, network.eval()(images), rtol=0, atol=0)
    output.sum().backward()
    assert norm.weight.grad is not None
    assert norm.weight.grad.abs().min() > 0


def test_batch_norm_follows_train_and_eval_like_torch() -> None:
    ours, torchs = BatchNorm(CHANNELS), nn.BatchNorm2d(CHANNELS)
    assert list(ours.state_dict()) == list(torchs.state_dict())
    images = torch.randn(4, CHANNELS, 5, 5)
    for mode in (True, False):
        torch.testing.assert_close(
            ours.train(mode)(images), torchs.train(mode)(images), rtol=0, atol=0
        )
    torch.testing.assert_close(ours.state_dict(), torchs.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(4, CHANNELS, 3, 2, padding=2, dilation=2, bias=False),
        Depthwise(CHANNELS, 1, 2),
        Depthwise(CHANNELS, 2, 1),
    ],
)
def test_folding_changes_neither_outputs_nor_gradients(
    convolution: nn.Conv2d, frozen: bool
) -> None:
    convolution, norm = convolution.double(), _lived_in(BatchNorm(CHANNELS, frozen))
    norm.train(frozen)
    images = torch.randn(2, convolution.in_channels, 7, 8, dtype=torch.float64, requires_grad=True)
    inputs = (images, convolution.weight, norm.weight, norm.bias)
    folded, plain = convolve(convolution, norm, images), norm(convolution(images))
    torch.testing.assert_close(folded, plain, rtol=0, atol=1e-12)
    direction = torch.randn_like(plain)
    torch.testing.assert_close(
        torch.autograd.grad(folded, inputs, direction),
        torch.autograd.grad(plain, inputs, direction),
        rtol=0,
        atol=1e-11,
    )
