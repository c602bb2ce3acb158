"""Measure how important each weight is to what a model has learned, for EWC, PI and RW.

While a step trains, a recorder sees every gradient and every change of the weights. The step
publishes the measured importance. The next step penalises changes of important weights
(`training.methods.weight_penalty`).

Importance is computed as in MiB's public code, also where that differs from the papers. It is
scaled to 0..1 within each tensor. The recorded gradients are those of the step's own loss, at the
weights before the update.

A vector here holds one value for each weight, in the order of `model.parameters()`. The classifiers
of later steps come last in that order. The vector of a parent step is therefore a prefix of the
vector of this step.
"""

from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from training.models.segmenter import Segmenter

# Share of the newest squared gradient in the running mean.
FISHER_SHARE = 0.9
# Iterations between two points of RW's path.
WALK_EVERY = 10
# Prefix of the names under which a step publishes importance.
PREFIX = "importance."


class Recorder(nn.Module):
    """Base class: sees a model train and measures importance, in vectors named by `measures`."""

    measures: ClassVar[tuple[str, ...]]

    def __init__(self, size: int, inherited: dict[str, Tensor]) -> None:
        """Store the number of weights, and what the parent step published; empty for step 0."""
        super().__init__()
        self.size = size
        names = {name: PREFIX + name for name in self.measures}
        self.inherited = {
            name: inherited[full] for name, full in names.items() if full in inherited
        }

    def vector(self, start: Tensor | None = None, fill: float = 0.0) -> nn.Buffer:
        """Return a buffer of one value per weight: `start`, then `fill`."""
        start = torch.empty(0) if start is None else start
        return nn.Buffer(torch.cat([start, start.new_full((self.size - len(start),), fill)]))

    def begin(self, weights: Tensor) -> None:
        """Store what is needed of the weights before the first update; by default nothing."""

    def record(self, weights: Tensor, gradients: Tensor, iteration: int) -> None:
        """Update the measures by one iteration.

        Args:
            weights: The weights before the update.
            gradients: The gradients at these weights.
            iteration: Counts from 0.
        """
        raise NotImplementedError

    def result(self, weights: Tensor) -> dict[str, Tensor]:
        """Return the measures by name, given the weights after the last update."""
        raise NotImplementedError


class Fisher(Recorder):
    """EWC (Kirkpatrick et al., 2017) online: F = 0.9 g^2 + 0.1 F per iteration.

    F starts from the parent's, and from 1 for new weights.
    """

    measures = ("fisher",)

    def __init__(self, size: int, inherited: dict[str, Tensor]) -> None:
        super().__init__(size, inherited)
        self.fisher = self.vector(self.inherited.get("fisher"), fill=1.0)

    def record(self, weights: Tensor, gradients: Tensor, iteration: int) -> None:
        """Update the running mean of squared gradients."""
        self.fisher.mul_(1 - FISHER_SHARE).add_(FISHER_SHARE * gradients.square())

    def result(self, weights: Tensor) -> dict[str, Tensor]:
        """Return F as `fisher`."""
        return {"fisher": self.fisher}


class PathIntegral(Recorder):
    """PI (Zenke et al., 2017): how much each weight's updates lowered the loss.

    score = max(0, sum_k g_k (theta_{k-1} - theta_k)) / ((theta_end - theta_start)^2 + 1e-20). It is
    added to the parent's.
    """

    measures = ("path_integral",)

    def __init__(self, size: int, inherited: dict[str, Tensor]) -> None:
        super().__init__(size, inherited)
        self.before = self.vector(self.inherited.get("path_integral"))
        self.first = self.vector()
        self.last = self.vector()
        self.path = self.vector()

    def begin(self, weights: Tensor) -> None:
        """Store the weights as the start of the path."""
        self.first.copy_(weights)
        self.last.copy_(weights)

    def record(self, weights: Tensor, gradients: Tensor, iteration: int) -> None:
        """Add this iteration's term to the path integral."""
        self.path.add_(gradients * (self.last - weights))
        self.last.copy_(weights)

    def result(self, weights: Tensor) -> dict[str, Tensor]:
        """Return the score as `path_integral`."""
        score = self.path / ((weights - self.first).square() + 1e-20)
        return {"path_integral": self.before + score.clamp(min=0)}


class RiemannianWalk(Fisher):
    """RW (Chaudhry et al., 2018): EWC's F, and a path integral with distances measured by F.

    Every 10 iterations the score grows by g (theta_last - theta) / (F (theta - theta_last)^2 / 2 +
    1e-8). At the end negative scores become 0, and the mean with the parent's score is taken.
    """

    measures = ("fisher", "walk")

    def __init__(self, size: int, inherited: dict[str, Tensor]) -> None:
        super().__init__(size, inherited)
        self.last = self.vector()
        self.walk = self.vector()

    def begin(self, weights: Tensor) -> None:
        """Store the weights as the start of the path."""
        self.last.copy_(weights)

    def record(self, weights: Tensor, gradients: Tensor, iteration: int) -> None:
        """Every 10 iterations add a term to the score; then update F."""
        if iteration % WALK_EVERY == 0:
            moved = self.last - weights
            self.walk.add_(gradients * moved / (0.5 * self.fisher * moved.square() + 1e-8))
            self.last.copy_(weights)
        super().record(weights, gradients, iteration)

    def result(self, weights: Tensor) -> dict[str, Tensor]:
        """Return F as `fisher` and the score as `walk`."""
        score = self.walk.clamp(min=0)
        if self.inherited:
            before = self.inherited["walk"].to(score)
            score[: len(before)] = (score[: len(before)] + before) / 2
        return {**super().result(weights), "walk": score}


class Importance(nn.ModuleList):
    """The recorders of a method, which all see the same model."""

    def __init__(
        self, model: Segmenter, inherited: dict[str, Tensor], *kinds: type[Recorder]
    ) -> None:
        """Build a recorder of each kind, given what the parent step published."""
        size = sum(parameter.numel() for parameter in model.parameters())
        super().__init__(kind(size, inherited) for kind in kinds)

    @property
    def recorders(self) -> list[Recorder]:
        """Return the recorders in order."""
        return [module for module in self if isinstance(module, Recorder)]

    def begin(self, model: Segmenter) -> None:
        """Pass the weights before the first update to each recorder."""
        weights = flatten(model.parameters())
        for recorder in self.recorders:
            recorder.begin(weights)

    def record(self, model: Segmenter, iteration: int) -> None:
        """Update each recorder with the gradients of one iteration, before its update."""
        weights = flatten(model.parameters())
        gradients = flatten(
            torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()
        )
        for recorder in self.recorders:
            recorder.record(weights, gradients, iteration)

    def carried(self, model: Segmenter) -> dict[str, Tensor]:
        """Return all measures, under the names by which the next step reads them."""
        weights = flatten(model.parameters())
        measures: dict[str, Tensor] = {}
        for recorder in self.recorders:
            for name, vector in recorder.result(weights).items():
                measures[PREFIX + name] = vector
        return measures


def flatten(tensors: Iterable[Tensor]) -> Tensor:
    """Return the values of all tensors as one vector: a copy without gradient."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def scale_each_tensor(vector: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return the vector with the values of each tensor scaled to 0..1.

    The scaling is (x - min) / (max - min + 1e-8).

    Args:
        vector: The values of several tensors, one tensor after another.
        sizes: How many values each tensor has.
    """
    scaled: list[Tensor] = []
    for values in vector.split(list(sizes)):
        scaled.append((values - values.min()) / (values.max() - values.min() + 1e-8))
    return torch.cat(scaled)
