"""Check the recorders of EWC, PI and RW against their update rules, written out weight by weight.

A tiny network is trained for a few iterations of SGD.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim import SGD

from tests.support.importance import (
    MEASURES,
    PENALTIES,
    build_batch,
    build_method,
    build_step,
    previous_size,
    random_importance,
)
from training import importance
from training.config import MethodConfig
from training.methods import base, fine_tuning

ITERATIONS = 23

# Of each iteration: the weights before the update, and the gradients of the step's own loss there.
Path = list[tuple[np.ndarray, np.ndarray]]


def train(
    method: base.Method, own_loss: Callable[[dict[str, Tensor]], Tensor]
) -> tuple[Path, np.ndarray]:
    """Train as `fit` does; return the path and the final weights."""
    optimizer = SGD(method.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4, nesterov=True)
    with torch.no_grad():
        method.prepare(list)
    path: Path = []
    for iteration in range(ITERATIONS):
        progress = base.Progress(iteration, ITERATIONS, ITERATIONS)
        losses = method(build_batch(iteration), progress)
        parameters = list(method.model.parameters())
        gradients = torch.autograd.grad(own_loss(losses), parameters, retain_graph=True)
        path.append((numbers(parameters), numbers(gradients)))
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        with torch.no_grad():
            method.before_update(progress)
        optimizer.step()
    return path, numbers(method.model.parameters())


def numbers(tensors: Any) -> np.ndarray:
    return np.concatenate([tensor.detach().numpy().ravel() for tensor in tensors])


def segmentation(losses: dict[str, Tensor]) -> Tensor:
    return losses["segmentation"]


def slow_fisher(path: Path, fisher: list[float]) -> list[list[float]]:
    """Return F of each weight after 0, 1, 2, ... iterations."""
    history = [fisher]
    for _, gradients in path:
        history.append([0.9 * g * g + 0.1 * f for g, f in zip(gradients, history[-1], strict=True)])
    return history


def slow_path_integral(path: Path, end: np.ndarray, before: list[float]) -> list[float]:
    scores = []
    for i, known in enumerate(before):
        total = 0.0
        for (earlier, _), (now, gradients) in pairwise(path):
            total += gradients[i] * (earlier[i] - now[i])
        score = total / ((end[i] - path[0][0][i]) ** 2 + 1e-20)
        scores.append(known + (score if score > 0 else 0.0))
    return scores


def slow_walk(path: Path, fisher: list[list[float]], before: list[float]) -> list[float]:
    scores = []
    for i in range(len(path[0][0])):
        score = 0.0
        for k in (10, 20):
            moved = path[k - 10][0][i] - path[k][0][i]
            score += path[k][1][i] * moved / (0.5 * fisher[k][i] * moved**2 + 1e-8)
        score = max(score, 0.0)
        scores.append((score + before[i]) / 2 if i < len(before) else score)
    return scores


def close(found: Tensor, expected: list[float], rtol: float = 1e-9) -> None:
    np.testing.assert_allclose(found.numpy(), np.array(expected), rtol=rtol, atol=1e-14)


def test_step_0_records_for_all_three() -> None:
    method = build_method(build_step(fine_tuning.Config(importance=True), ((1, 2),)))
    path, end = train(method, segmentation)
    carried = method.carried()
    fisher = slow_fisher(path, [1.0] * len(end))
    integral = slow_path_integral(path, end, [0.0] * len(end))
    close(carried["importance.fisher"], fisher[-1])
    close(carried["importance.path_integral"], integral, rtol=1e-6)
    close(carried["importance.walk"], slow_walk(path, fisher, []))
    assert all((vector > 0).any() for vector in carried.values())


@pytest.mark.parametrize("config", PENALTIES, ids=lambda config: config.name)
def test_later_steps_continue_from_what_the_parent_recorded(config: MethodConfig) -> None:
    known = random_importance()
    method = build_method(build_step(config), known)
    path, end = train(method, segmentation)
    carried = method.carried()
    new = len(end) - previous_size()
    assert new == 4 + 1  # a classifier of one class
    before = {name: vector.tolist() for name, vector in known.items()}
    fisher = slow_fisher(path, before["importance.fisher"] + [1.0] * new)
    integral = before["importance.path_integral"] + [0.0] * new
    expected = {
        "importance.fisher": fisher[-1],
        "importance.path_integral": slow_path_integral(path, end, integral),
        "importance.walk": slow_walk(path, fisher, before["importance.walk"]),
    }
    assert sorted(carried) == [f"importance.{name}" for name in MEASURES[config.name]]
    for name, vector in carried.items():
        close(vector, expected[name], rtol=1e-6 if "path" in name else 1e-9)


def test_scaling_survives_a_tensor_of_equal_values() -> None:
    scaled = importance.scale_each_tensor(torch.tensor([2.0, 2.0, 1.0, 3.0]), [2, 2])
    assert scaled.tolist() == pytest.approx([0, 0, 0, 1])
