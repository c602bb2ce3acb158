"""Load golden numbers, and compare losses with them and between workers."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.support.paths import GOLDEN
from training.config import VOID
from training.losses import Mean, divide


def load(name: str, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Return a golden file's inputs in `dtype` and its outputs in float64."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        tensors = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    for key, value in tensors.items():
        if key.startswith("in.") and value.is_floating_point():
            tensors[key] = value.to(dtype)
    return tensors


def learnable(tensor: Tensor) -> Tensor:
    return tensor.clone().requires_grad_()


def close(actual: Tensor | None, golden: Tensor, relative: float = 1e-9) -> None:
    """Assert agreement relative to the largest value, since gradients are tiny numbers."""
    assert actual is not None
    atol = relative * golden.abs().max().item()
    assert_close(actual.detach().double(), golden, rtol=relative, atol=atol)


def random_batch(seed: int, size: int = 4, void: float = 0.3) -> tuple[Tensor, Tensor]:
    """Return logits [size, 5, 6, 7] and targets with the labels 0, 3, 4 and void.

    The share of void grows from image to image.
    """
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, 5, 6, 7, dtype=torch.float64, generator=generator)
    target = torch.tensor([0, 3, 4])[torch.randint(0, 3, (size, 6, 7), generator=generator)]
    share = torch.linspace(0, 2 * void, size).view(-1, 1, 1)
    return logits, torch.where(torch.rand(size, 6, 7, generator=generator) < share, VOID, target)


def check_workers(
    loss: Callable[[slice, Mean, Tensor], Tensor], logits: Tensor, counted: Tensor
) -> None:
    """Assert that two workers have the loss and the gradient of the whole batch.

    As under DDP, values and gradients are averaged; the denominator `counted` is summed by `mean`.
    """

    def shared(total: Tensor, weight: Tensor, epsilon: float = 0.0) -> Tensor:
        return 2 * divide(total, counted.to(weight.dtype), epsilon)

    whole, halves = learnable(logits), learnable(logits)
    expected = loss(slice(None), divide, whole)
    actual = (loss(slice(0, 2), shared, halves) + loss(slice(2, 4), shared, halves)) / 2
    assert_close(actual, expected, rtol=1e-13, atol=0)
    expected.backward()
    actual.backward()
    assert_close(halves.grad, whole.grad, rtol=1e-13, atol=1e-18)
