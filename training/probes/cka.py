"""How alike two representations are: linear centred kernel alignment, debiased and over minibatches.

CKA compares what two layers say of the same examples, whatever the channels are called: it does not change when either is
rotated or scaled. The plain estimate grows with the number of channels even for unrelated layers; the unbiased estimator of
HSIC (Song et al., 2012) does not, and averaged over minibatches it needs no Gram matrix of all examples (Nguyen et al., 2021).
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class LinearCka:
    """CKA of two layers, example by example. `update` with minibatches, then read `value`."""

    sums: Tensor = field(
        default_factory=lambda: torch.zeros(3, dtype=torch.float64)
    )  # of HSIC(x, y), HSIC(x, x), HSIC(y, y)

    def update(self, x: Tensor, y: Tensor) -> None:
        """Add a minibatch: `x` [n, C] and `y` [n, D], the same n >= 4 examples. Raises ValueError for fewer."""
        if len(x) != len(y) or len(x) < 4:
            raise ValueError(
                f"CKA compares the same examples, at least 4 in a batch: there are {len(x)} and {len(y)}"
            )
        first, second = _gram(x), _gram(y)
        pairs = ((first, second), (first, first), (second, second))
        self.sums += torch.stack([unbiased_hsic(a, b) for a, b in pairs]).cpu()

    @property
    def value(self) -> float:
        """sum HSIC(x, y) / sqrt(sum HSIC(x, x) sum HSIC(y, y)): 1 for the same representation, around 0 for unrelated ones.

        Being unbiased it can fall a little below 0. NaN when a layer says the same of all examples.
        """
        both, x, y = self.sums.tolist()
        return both / (x * y) ** 0.5 if x > 0 and y > 0 else float("nan")


def unbiased_hsic(first: Tensor, second: Tensor) -> Tensor:
    """Unbiased estimate of the Hilbert-Schmidt independence criterion of two Gram matrices [n, n] with zero diagonal.

    (tr(KL) + 1'K1 1'L1 / ((n - 1)(n - 2)) - 2 / (n - 2) 1'KL1) / (n (n - 3)), Song et al. (2012), Eq. 5.
    """
    n = len(first)
    trace = (first * second).sum()
    sums = first.sum() * second.sum() / ((n - 1) * (n - 2))
    product = 2 / (n - 2) * (first.sum(0) @ second.sum(0))
    return (trace + sums - product) / (n * (n - 3))


def _gram(x: Tensor) -> Tensor:
    """Inner products of examples, without each one's own. Centred first: HSIC is the same, and rounds less."""
    x = x.double()
    x = x - x.mean(0)
    gram = x @ x.T
    return gram.fill_diagonal_(0)
