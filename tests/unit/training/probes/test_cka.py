"""CKA against closed forms and a slow direct computation."""

from itertools import permutations

import pytest
import torch

from training.probes.cka import LinearCka, unbiased_hsic


def features(seed: int, examples: int = 40, channels: int = 6) -> torch.Tensor:
    return torch.randn(
        examples, channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def cka(x: torch.Tensor, y: torch.Tensor, batch: int = 20) -> float:
    similarity = LinearCka()
    for a, b in zip(x.split(batch), y.split(batch), strict=True):
        similarity.update(a, b)
    return similarity.value


def test_a_rotated_scaled_and_shifted_representation_is_the_same():
    x = features(0)
    rotation, _ = torch.linalg.qr(features(1, 6, 6))
    assert cka(x, 3 * x @ rotation + 5) == pytest.approx(1, abs=1e-12)


def test_a_permuted_layer_is_the_same():
    x = features(0)
    assert cka(x, x[:, torch.tensor([3, 1, 5, 0, 2, 4])]) == pytest.approx(1, abs=1e-12)


def test_unrelated_layers_have_none_however_many_channels_they_have():
    """Use 64 channels of 32 examples, for which the biased estimate is about 0.9."""
    values = [
        cka(features(2 * seed, 320, 64), features(2 * seed + 1, 320, 64), 32) for seed in range(8)
    ]
    assert abs(sum(values) / len(values)) < 0.03


def test_a_layer_of_which_half_is_kept_lies_between():
    x, other = features(0, 400, 16), features(1, 400, 16)
    mixed = torch.cat([x[:, :8], other[:, 8:]], 1)
    assert 0.3 < cka(x, mixed, 100) < 0.7


def test_hsic_is_the_mean_over_distinct_quadruples():
    """Compute its U-statistic over all ordered quadruples of distinct examples."""
    n = 6
    x, y = features(0, n, 3), features(1, n, 2)
    first, second = (z @ z.T for z in (x, y))
    terms = [
        float(first[i, j] * (second[i, j] + second[q, r] - 2 * second[i, q]))
        for i, j, q, r in permutations(range(n), 4)
    ]
    grams = [gram.clone().fill_diagonal_(0) for gram in (first, second)]
    assert unbiased_hsic(*grams).item() == pytest.approx(sum(terms) / len(terms), rel=1e-10)


def test_over_minibatches_it_is_the_ratio_of_summed_hsic():
    """Compute Song et al.'s estimator with whole matrices. The last batch is small."""
    x, y = features(0, 30, 5), features(1, 30, 3) + features(0, 30, 5)[:, :3]

    def hsic(first: torch.Tensor, second: torch.Tensor) -> float:
        n = len(first)
        one = torch.ones(n, 1, dtype=torch.float64)
        k, low = ((z @ z.T) * (1 - torch.eye(n, dtype=torch.float64)) for z in (first, second))
        trace = (k @ low).trace()
        both = (one.T @ k @ one) * (one.T @ low @ one) / ((n - 1) * (n - 2))
        return float(trace + both - 2 / (n - 2) * (one.T @ k @ low @ one)) / (n * (n - 3))

    sizes = (12, 12, 6)
    parts = list(zip(x.split(sizes), y.split(sizes), strict=True))
    of_both = sum(hsic(a, b) for a, b in parts)
    of_x = sum(hsic(a, a) for a, _ in parts)
    of_y = sum(hsic(b, b) for _, b in parts)
    similarity = LinearCka()
    for pair in parts:
        similarity.update(*pair)
    assert similarity.value == pytest.approx(of_both / (of_x * of_y) ** 0.5, rel=1e-10)
    assert 0.2 < similarity.value < 0.9


def test_too_few_examples_are_refused():
    with pytest.raises(ValueError, match="at least 4"):
        LinearCka().update(features(0, 3), features(1, 3))
