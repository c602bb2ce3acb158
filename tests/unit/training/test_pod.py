"""Check PLOP's distillation against the published code, and its embedding on small maps."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.support.paths import GOLDEN
from training.pod import local_pod, pod_distance, pod_loss

PLOP = GOLDEN / "plop.npz"
LEVELS = ("attention0", "attention1", "attention2", "logits_small")
WEIGHTS = [0.01, 0.01, 0.01, 0.0005]


def load(dtype: torch.dtype) -> tuple[dict[str, Tensor], list[Tensor], list[Tensor]]:
    """Return the golden numbers, the levels with gradients, and the previous ones; logits last."""
    with np.load(PLOP) as arrays:
        z = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    now = [z[f"in.{name}"].to(dtype).requires_grad_() for name in LEVELS]
    before = [z[f"in.previous_{name}"].to(dtype) for name in LEVELS]
    return z, now, before


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_the_loss_agrees_with_the_published_code(dtype: torch.dtype, tolerance: float) -> None:
    z, now, before = load(dtype)
    for level in range(3):
        embedding = local_pod(now[level].square()).double()
        assert_close(embedding, z[f"out.local_pod{level}"], rtol=tolerance, atol=tolerance)
    loss = pod_loss(now, before, WEIGHTS)
    loss.backward()
    # The published code sums the levels in float32.
    assert loss.item() == pytest.approx(z["out.pod_loss"].item(), rel=max(tolerance, 1e-7))
    for level, values in enumerate(now):
        golden = z[f"out.pod_loss.grad{level}"]
        assert values.grad is not None
        atol = tolerance * golden.abs().max().item()
        assert_close(values.grad.double(), golden, rtol=tolerance, atol=atol)


def test_an_embedding_holds_the_means_of_rows_and_columns_of_every_window() -> None:
    maps = torch.tensor([[1.0, 2], [3, 6]]).view(1, 1, 2, 2)
    whole = [1.5, 4.5, 2, 4]  # rows, then columns
    quarters = [1, 1, 2, 2, 3, 3, 6, 6]  # a cell is its own row and column
    assert local_pod(maps).tolist() == [[*whole, *quarters]], "windows at scale 4 would be empty"


def test_windows_cut_each_side_apart() -> None:
    """A map of 2 x 4: at scale 2 the windows are 1 x 2."""
    maps = torch.arange(8.0).view(1, 1, 2, 4)
    whole = [1.5, 5.5, 2, 3, 4, 5]
    windows = [0.5, 0, 1, 2.5, 2, 3, 4.5, 4, 5, 6.5, 6, 7]
    assert local_pod(maps).tolist() == [[*whole, *windows]]


def test_logits_of_new_channels_count_as_background() -> None:
    """With background 1, a previous class 2, and new ones 3 and -1, background is 1 + 3 - 1."""
    logits = torch.tensor([1.0, 2, 3, -1]).view(1, 4, 1, 1)
    alike = torch.tensor([3.0, 2]).view(1, 2, 1, 1)
    assert pod_loss([logits], [alike], [1]) == 0
    other = torch.tensor([3.0, 1]).view(1, 2, 1, 1)
    # 2^2 and 1^2 differ by 3, in a row and in a column.
    distance = (2 * 3**2) ** 0.5
    loss = pod_loss([logits], [other], [0.5]).item()
    assert loss == pytest.approx(0.5 * distance * (4 / 2) ** 0.5)
    maps = torch.ones(1, 1, 1, 1)
    loss = pod_loss([maps, logits], [maps, other], [1, 1]).item()
    assert loss == pytest.approx(distance * 2**0.5 / 2), "mean over levels"


def test_maps_that_are_the_same_have_a_gradient() -> None:
    """The formula of a norm has none at zero, where frozen encoders are in every iteration."""
    maps = torch.randn(2, 3, 8, 8).requires_grad_()
    pod_distance(maps, maps).backward()
    assert maps.grad is not None
    assert torch.equal(maps.grad, torch.zeros_like(maps))
