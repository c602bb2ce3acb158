"""Head and localizer have the sizes of the paper's code; a window pools at evaluation."""

import pytest
import torch
from torch import nn

from training.models.head import Head
from training.models.localizer import Localizer


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _head(output_stride: int = 16, eval_pooling: int | None = 4) -> Head:
    torch.manual_seed(0)
    return Head(6, 5, output_stride, eval_pooling, "leaky_relu").double()


def test_sizes_are_the_papers() -> None:
    assert _parameters(Head(2048, 256, 16, 32, "leaky_relu")) == 15_535_104  # 15.54 M
    assert _parameters(Localizer(2048, 256, 21)) == 5_309_440 + 257 * 21  # 5.31 M


@pytest.mark.parametrize(
    ("output_stride", "dilations"), [(4, (6, 12, 18)), (8, (12, 24, 32)), (16, (6, 12, 18))]
)
def test_dilations_follow_the_output_stride(output_stride: int, dilations: tuple[int, ...]) -> None:
    branches = [branch for branch in _head(output_stride).branches if isinstance(branch, nn.Conv2d)]
    assert [branch.dilation[0] for branch in branches[1:]] == list(dilations)
    assert branches[0].kernel_size == (1, 1)


@pytest.mark.parametrize("size", [(5, 7), (8, 13), (20, 3), (24, 24)])
def test_branches_are_what_their_convolutions_compute_on_maps_smaller_than_the_dilation(
    size: tuple[int, int],
) -> None:
    """The head cuts kernels to their centre on small maps; the definition here does not."""
    head = _head(eval_pooling=None).eval()
    features = torch.randn(2, 6, *size, dtype=torch.float64, requires_grad=True)
    mixed = head.reduce(
        head.act(
            head.branches_norm(torch.cat([branch(features) for branch in head.branches], dim=1))
        )
    )
    pooled = head.pooled_expand(
        head.act(head.pooled_norm(head.pooled_reduce(features.mean((2, 3), keepdim=True))))
    )
    expected = head.act(head.norm(mixed + pooled))
    found = head(features)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    inputs = (features, *head.parameters())
    direction = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, inputs, direction),
        torch.autograd.grad(expected, inputs, direction),
        rtol=0,
        atol=1e-10,
    )


def _pooled_by_hand(features: torch.Tensor, window: int) -> torch.Tensor:
    """Average over a window cut off at the map; repeat border values where no whole window fits."""
    height, width = features.shape[-2:]
    sides = min(window, height), min(window, width)
    result = torch.empty_like(features)
    for row in range(height):
        for column in range(width):
            top = min(max(row - (sides[0] - 1) // 2, 0), height - sides[0])
            left = min(max(column - (sides[1] - 1) // 2, 0), width - sides[1])
            result[..., row, column] = features[
                ..., top : top + sides[0], left : left + sides[1]
            ].mean((2, 3))
    return result


@pytest.mark.parametrize("size", [(9, 11), (3, 10), (4, 4), (2, 3)])
@pytest.mark.parametrize("window", [4, 5])
def test_evaluation_slides_a_window_that_keeps_the_size(size: tuple[int, int], window: int) -> None:
    head = _head(eval_pooling=window).eval()
    features = torch.randn(2, 6, *size, dtype=torch.float64)
    pooled = head.pooled_expand(
        head.act(head.pooled_norm(head.pooled_reduce(_pooled_by_hand(features, window))))
    )
    mixed = head.reduce(
        head.act(
            head.branches_norm(torch.cat([branch(features) for branch in head.branches], dim=1))
        )
    )
    found = head(features)
    assert found.shape == (2, 5, *size)
    torch.testing.assert_close(found, head.act(head.norm(mixed + pooled)), rtol=0, atol=1e-12)


def test_window_of_the_whole_map_or_none_pools_globally() -> None:
    features = torch.randn(2, 6, 7, 9, dtype=torch.float64)
    whole, larger, none = (_head(eval_pooling=window).eval()(features) for window in (9, 50, None))
    torch.testing.assert_close(whole, none, rtol=0, atol=0)
    torch.testing.assert_close(larger, none, rtol=0, atol=0)
    assert not torch.allclose(_head(eval_pooling=3).eval()(features), none)


def test_training_pools_globally_whatever_the_window() -> None:
    features = torch.randn(2, 6, 7, 9, dtype=torch.float64)
    torch.testing.assert_close(
        _head(eval_pooling=3)(features), _head(eval_pooling=None)(features), rtol=0, atol=0
    )


def test_localizer_scores_every_seen_class_and_trains_what_it_reads() -> None:
    features = torch.randn(2, 6, 5, 4, requires_grad=True)
    localizer = Localizer(6, 8, 10, "leaky_relu")
    scores = localizer(features)
    assert scores.shape == (2, 10, 5, 4)
    scores.square().mean().backward()
    assert features.grad is not None
    assert features.grad.abs().sum() > 0
