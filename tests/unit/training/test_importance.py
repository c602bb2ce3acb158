"""EWC, PI and RW against their update rules written out weight by weight, over a few steps of SGD on a tiny network."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.optim import SGD

from training import importance
from training.checkpoint import freeze
from training.config import Augmentation, MethodConfig, ModelConfig, Optimization, StepConfig, Task
from training.methods import base, ewc, fine_tuning, pi, rw
from training.models.segmenter import Segmenter, normalise

MODEL = ModelConfig(encoder="tiny", output_stride=4, head_channels=4, eval_pooling=8)
ITERATIONS = 23
METHODS: dict[str, Any] = {"fine-tuning": fine_tuning, "ewc": ewc, "pi": pi, "rw": rw}


def step(
    method: MethodConfig,
    groups: tuple[tuple[int, ...], ...] = ((1, 2), (3,)),
    **optimization: float,
) -> StepConfig:
    task = Task(data="d", groups=groups, selection="s", images=8, supervision="pixel")
    settings = {
        "batch": 2,
        "precision": "float64",
        "encoder_lr": 0.01,
        "head_lr": 0.01,
    } | optimization
    return StepConfig(
        task=task,
        method=method,
        model=MODEL,
        optimization=Optimization.model_validate(settings),
        augmentation=Augmentation(crop=16),
    )


def build(document: StepConfig, inherited: dict[str, Tensor] | None = None) -> base.Method:
    torch.manual_seed(3)
    previous = (
        freeze(Segmenter(MODEL, document.task.channels[:-1]).double())
        if len(document.task.groups) > 1
        else None
    )
    made: base.Method = METHODS[document.method.name].Method(
        document, previous, inherited=inherited
    )
    return made.double().train()


def batch(number: int) -> base.Batch:
    generator = torch.Generator().manual_seed(number)
    pixels = torch.randint(0, 256, (2, 3, 16, 16), generator=generator, dtype=torch.uint8)
    targets = torch.randint(0, 3, (2, 16, 16), generator=generator)
    return base.Batch(pixels, normalise(pixels, torch.float64), targets, torch.zeros(2, 3))


Path = list[
    tuple[np.ndarray, np.ndarray]
]  # weights before each update, and the gradients of the step's own loss there


def train(
    method: base.Method, own_loss: Callable[[dict[str, Tensor]], Tensor]
) -> tuple[Path, np.ndarray]:
    """Train as `fit` does; returns what was passed and the weights at the end."""
    optimizer = SGD(method.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4, nesterov=True)
    with torch.no_grad():
        method.prepare(list)
    path: Path = []
    for iteration in range(ITERATIONS):
        progress = base.Progress(iteration, ITERATIONS, ITERATIONS)
        losses = method(batch(iteration), progress)
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
    """F of each weight after 0, 1, 2, ... iterations."""
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
    method = build(step(fine_tuning.Config(importance=True), ((1, 2),)))
    path, end = train(method, segmentation)
    carried, size = method.carried(), len(end)
    fisher = slow_fisher(path, [1.0] * size)
    close(carried["importance.fisher"], fisher[-1])
    close(
        carried["importance.path_integral"], slow_path_integral(path, end, [0.0] * size), rtol=1e-6
    )
    close(carried["importance.walk"], slow_walk(path, fisher, []))
    assert all((vector > 0).any() for vector in carried.values())


def inherited(size: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    names = ("fisher", "path_integral", "walk")
    return {
        f"importance.{name}": 5 * torch.rand(size, generator=generator, dtype=torch.float64)
        for name in names
    }


@pytest.fixture
def previous_size() -> int:
    return sum(parameter.numel() for parameter in Segmenter(MODEL, (3,)).parameters())


@pytest.mark.parametrize(
    "config", [ewc.Config(weight=3), pi.Config(weight=3), rw.Config(weight=3)], ids=lambda c: c.name
)
def test_later_steps_go_on_from_what_the_parent_recorded(
    config: MethodConfig, previous_size: int
) -> None:
    known = inherited(previous_size)
    method = build(step(config), known)
    path, end = train(method, segmentation)
    carried, new = method.carried(), len(end) - previous_size
    assert new == 4 + 1  # a classifier of one class
    before = {name: vector.tolist() for name, vector in known.items()}
    fisher = slow_fisher(path, before["importance.fisher"] + [1.0] * new)
    expected = {
        "importance.fisher": fisher[-1],
        "importance.path_integral": slow_path_integral(
            path, end, before["importance.path_integral"] + [0.0] * new
        ),
        "importance.walk": slow_walk(path, fisher, before["importance.walk"]),
    }
    measures = {"ewc": ["fisher"], "pi": ["path_integral"], "rw": ["fisher", "walk"]}[config.name]
    assert sorted(carried) == [f"importance.{name}" for name in measures]
    for name, vector in carried.items():
        close(vector, expected[name], rtol=1e-6 if "path" in name else 1e-9)


@pytest.mark.parametrize(
    "config", [ewc.Config(weight=3), pi.Config(weight=3), rw.Config(weight=3)], ids=lambda c: c.name
)
def test_the_penalty_is_the_weighted_distance_and_so_is_its_pull(
    config: MethodConfig, previous_size: int
) -> None:
    """Each tensor's importance is scaled to 0..1, and what before_update adds is the gradient of the penalty."""
    known = inherited(previous_size)
    method = build(step(config), known)
    names = {"ewc": ["fisher"], "pi": ["path_integral"], "rw": ["fisher", "walk"]}[config.name]
    penalty, start, pulls = 0.0, 0, []
    with torch.no_grad():
        for parameter in method.model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    for now, before in zip(method.model.parameters(), method.previous.parameters(), strict=False):
        matters = torch.zeros(now.numel(), dtype=torch.float64)
        for name in names:
            vector = known[f"importance.{name}"][start : start + now.numel()]
            matters += (vector - vector.min()) / (vector.max() - vector.min() + 1e-8)
        distance = (now - before).detach().reshape(-1)
        penalty += 3 * float((matters * distance**2).sum())
        pulls.append((6 * matters * distance).view_as(now))
        start += now.numel()
    losses = method(batch(0), base.Progress(0, 10, 10))
    assert losses["penalty"].item() == pytest.approx(penalty)
    torch.stack(list(losses.values())).sum().backward()
    own = [
        parameter.grad.clone()
        for parameter in method.model.parameters()
        if parameter.grad is not None
    ]
    with torch.no_grad():
        method.before_update(base.Progress(0, 10, 10))
    for parameter, gradient, pull in zip(
        method.model.parameters(), own, [*pulls, 0, 0], strict=True
    ):
        torch.testing.assert_close(parameter.grad, gradient + pull)


def test_a_pull_that_makes_sgd_diverge_is_refused() -> None:
    """The published weight goes with the published learning rate, and not with ten times that."""
    step(ewc.Config(), encoder_lr=0.001, head_lr=0.001)
    with pytest.raises(
        ValidationError,
        match=r"step 1 would diverge: at a learning rate of 0\.01 'ewc' .* to 0\.001, or",
    ):
        step(ewc.Config())
    limit = 2 * 1.9 / 2.8
    for rate, grows in [
        (0.99 * limit, False),
        (1.01 * limit, True),
    ]:  # on a parabola of curvature 1
        value, velocity = 1.0, 0.0
        for _ in range(2000):
            velocity = 0.9 * velocity + value
            value -= rate * (value + 0.9 * velocity)
        assert (abs(value) > 1) is grows


def test_scaling_survives_a_tensor_that_is_all_alike() -> None:
    assert importance.scaled(torch.tensor([2.0, 2.0, 1.0, 3.0]), [2, 2]).tolist() == pytest.approx(
        [0, 0, 0, 1]
    )
