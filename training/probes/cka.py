"""Measure the similarity of two representations: linear, debiased, minibatch CKA.

Centred kernel alignment (CKA) compares what two layers compute for the same examples, whatever the
order of their channels. It does not change when either representation is rotated or scaled. The
plain estimate grows with the number of channels even for unrelated layers. The unbiased estimator
of HSIC (Song et al., 2012) does not. Averaged over minibatches, it needs no Gram matrix of all
examples (Nguyen et al., 2021).
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

FEWEST_EXAMPLES = 4  # for which the unbiased estimator of HSIC is defined


@dataclass
class LinearCka:
    """CKA of two layers. Call `update` with minibatches, then read `value`.

    CKA = sum HSIC(K, L) / sqrt(sum HSIC(K, K) sum HSIC(L, L)), each sum over minibatches, where
    K = X X^T and L = Y Y^T are the Gram matrices of the two layers (Nguyen et al., 2021, Eq. 2).
    """

    # Sums over minibatches of HSIC(K, L), HSIC(K, K), HSIC(L, L).
    sums: Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))

    def update(self, x: Tensor, y: Tensor) -> None:
        """Add a minibatch.

        Args:
            x: What the first layer computes, [n, C].
            y: What the second layer computes for the same n examples, [n, D].

        Raises:
            ValueError: There are fewer than 4 examples, or not the same number of each.
        """
        if len(x) != len(y) or len(x) < FEWEST_EXAMPLES:
            raise ValueError(
                f"CKA compares the same examples, at least {FEWEST_EXAMPLES} in a batch: "
                f"there are {len(x)} and {len(y)}"
            )
        first, second = _gram(x), _gram(y)
        pairs = ((first, second), (first, first), (second, second))
        self.sums += torch.stack([unbiased_hsic(a, b) for a, b in pairs]).cpu()

    @property
    def value(self) -> float:
        """Return the CKA: 1 for equal representations, around 0 for unrelated ones.

        The estimator is unbiased, so it can be a little below 0. It is NaN when a layer computes
        the same for all examples.
        """
        both, x, y = self.sums.tolist()
        return both / (x * y) ** 0.5 if x > 0 and y > 0 else float("nan")


def unbiased_hsic(first: Tensor, second: Tensor) -> Tensor:
    """Estimate the Hilbert-Schmidt independence criterion of two Gram matrices without bias.

    (tr(K L) + 1'K1 1'L1 / ((n - 1)(n - 2)) - 2 / (n - 2) 1'K L1) / (n (n - 3)), Song et al.
    (2012), Eq. 5.

    Args:
        first: K [n, n], symmetric, with a zero diagonal.
        second: L [n, n], likewise.

    Returns:
        The estimate, a scalar.
    """
    n = len(first)
    trace = (first * second).sum()
    sums = first.sum() * second.sum() / ((n - 1) * (n - 2))
    product = 2 / (n - 2) * (first.sum(0) @ second.sum(0))
    return (trace + sums - product) / (n * (n - 3))


def _gram(x: Tensor) -> Tensor:
    """Return the Gram matrix [n, n] of `x` [n, C] in float64, with a zero diagonal.

    Centring `x` first leaves HSIC as it is and reduces rounding errors.
    """
    x = x.double()
    x = x - x.mean(0)
    gram = x @ x.T
    return gram.fill_diagonal_(0)
