"""How much each weight matters to what a model has learned, for the methods that hold such weights in place: EWC, PI, RW.

While a step trains, a recorder watches every gradient and every movement of the weights, and the step publishes what it
made of them. The next step pulls each weight back to its old value, the harder the more it mattered:
    penalty = weight * sum_i importance_i (theta_i - theta_old_i)^2.
All is as MiB's public code computes it, where it differs from the papers too: importance is scaled to 0..1 within each
tensor, and what is recorded are gradients of the step's own loss, taken where the weights are before the update.

A vector here holds one value for each weight, in the order of `model.parameters()`. Classifiers of later steps come last in
that order, so what a parent published is the beginning of a vector.
"""

from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from training.models.segmenter import Segmenter

FISHER_SHARE = 0.9  # of the newest gradient in the running mean of squares
WALK_EVERY = 10  # iterations between two points of RW's path
PREFIX = "importance."  # of the vectors' names among what a step publishes


class Recorder(nn.Module):
    """Watches a model train. `measures` names what it publishes, each a vector (see `Importance.carried`)."""

    measures: ClassVar[tuple[str, ...]]

    def __init__(self, size: int, inherited: dict[str, Tensor]) -> None:
        """`size`: number of weights. `inherited`: what the parent step carried on; empty for step 0."""
        super().__init__()
        self.size = size
        self.inherited = {
            name: inherited[PREFIX + name] for name in self.measures if PREFIX + name in inherited
        }

    def vector(self, start: Tensor | None = None, fill: float = 0.0) -> nn.Buffer:
        """A vector that begins with `start` and goes on with `fill`; it moves and is saved with the method."""
        start = torch.empty(0) if start is None else start
        return nn.Buffer(torch.cat([start, start.new_full((self.size - len(start),), fill)]))

    def begin(self, weights: Tensor) -> None:
        """Take note of the weights before the first update."""

    def record(self, weights: Tensor, gradients: Tensor, iteration: int) -> None:
        """Learn from one iteration: the weights before their update, and the gradients there."""
        raise NotImplementedError

    def result(self, weights: Tensor) -> dict[str, Tensor]:
        """The measures by name, after the last update."""
        raise NotImplementedError


class Fisher(Recorder):
    """EWC (Kirkpatrick et al., 2017), online: F = 0.9 g^2 + 0.1 F in each iteration, from 1 for weights that are new."""

    measures = ("fisher",)

    def __init__(self, size: int, inherited: dict[str, Tensor]) -> None:
        super().__init__(size, inherited)
        self.fisher = self.vector(self.inherited.get("fisher"), fill=1.0)

    def record(self, weights: Tensor, gradients: Tensor, iteration: int) -> None:
        self.fisher.mul_(1 - FISHER_SHARE).add_(FISHER_SHARE * gradients.square())

    def result(self, weights: Tensor) -> dict[str, Tensor]:
        return {"fisher": self.fisher}


class PathIntegral(Recorder):
    """PI (Zenke et al., 2017): what each weight's own way contributed to the fall of the loss, over the square of its length.

    score = max(0, sum_k g_k (theta_{k-1} - theta_k)) / ((theta_end - theta_start)^2 + 1e-20), added to the parent's.
    """

    measures = ("path_integral",)

    def __init__(self, size: int, inherited: dict[str, Tensor]) -> None:
        super().__init__(size, inherited)
        self.before = self.vector(self.inherited.get("path_integral"))
        self.first, self.last, self.path = self.vector(), self.vector(), self.vector()

    def begin(self, weights: Tensor) -> None:
        self.first.copy_(weights)
        self.last.copy_(weights)

    def record(self, weights: Tensor, gradients: Tensor, iteration: int) -> None:
        self.path.add_(gradients * (self.last - weights))
        self.last.copy_(weights)

    def result(self, weights: Tensor) -> dict[str, Tensor]:
        score = self.path / ((weights - self.first).square() + 1e-20)
        return {"path_integral": self.before + score.clamp(min=0)}


class RiemannianWalk(Fisher):
    """RW (Chaudhry et al., 2018): EWC's F, and the fall of the loss over the length of the way as F measures it.

    Every 10 iterations the score grows by g (theta_last - theta) / (F (theta - theta_last)^2 / 2 + 1e-8); negative scores
    count as 0, and the parent's is averaged in.
    """

    measures = ("fisher", "walk")

    def __init__(self, size: int, inherited: dict[str, Tensor]) -> None:
        super().__init__(size, inherited)
        self.last, self.walk = self.vector(), self.vector()

    def begin(self, weights: Tensor) -> None:
        self.last.copy_(weights)

    def record(self, weights: Tensor, gradients: Tensor, iteration: int) -> None:
        if iteration % WALK_EVERY == 0:
            moved = self.last - weights
            self.walk.add_(gradients * moved / (0.5 * self.fisher * moved.square() + 1e-8))
            self.last.copy_(weights)
        super().record(weights, gradients, iteration)

    def result(self, weights: Tensor) -> dict[str, Tensor]:
        score = self.walk.clamp(min=0)
        if self.inherited:
            before = self.inherited["walk"].to(score)
            score[: len(before)] = (score[: len(before)] + before) / 2
        return {**super().result(weights), "walk": score}


class Importance(nn.ModuleList):
    """The recorders of a method, each watching the same model. `inherited`: what the parent step carried on."""

    def __init__(
        self, model: Segmenter, inherited: dict[str, Tensor], *kinds: type[Recorder]
    ) -> None:
        size = sum(parameter.numel() for parameter in model.parameters())
        super().__init__(kind(size, inherited) for kind in kinds)

    @property
    def recorders(self) -> list[Recorder]:
        return [module for module in self if isinstance(module, Recorder)]

    def begin(self, model: Segmenter) -> None:
        """Take note of the weights before the first update."""
        weights = flat(model.parameters())
        for recorder in self.recorders:
            recorder.begin(weights)

    def record(self, model: Segmenter, iteration: int) -> None:
        """Learn from the gradients of one iteration, before its update."""
        weights = flat(model.parameters())
        gradients = flat(
            torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()
        )
        for recorder in self.recorders:
            recorder.record(weights, gradients, iteration)

    def carried(self, model: Segmenter) -> dict[str, Tensor]:
        """All measures, under the names that the next step finds them by."""
        weights = flat(model.parameters())
        results = [recorder.result(weights) for recorder in self.recorders]
        return {f"{PREFIX}{name}": vector for result in results for name, vector in result.items()}


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """The values of all tensors as one vector: a copy, without gradient."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def scaled(vector: Tensor, sizes: Sequence[int]) -> Tensor:
    """A vector made of tensors with so many values each, every one of them scaled to 0..1: (x - min) / (max - min + 1e-8)."""
    parts = [
        (part - part.min()) / (part.max() - part.min() + 1e-8) for part in vector.split(list(sizes))
    ]
    return torch.cat(parts)
