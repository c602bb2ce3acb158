"""Weights that other code named compute with our network what they did there."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.support.foreign_weights import as_papers, as_torchvision, varied
from training.config import ModelConfig
from training.models.head import Head
from training.models.layouts import (
    describe_encoder,
    guess_norm,
    layout_of,
    to_own_names,
)
from training.models.segmenter import Segmenter

WIDTH = 4
PAPERS = ModelConfig(
    encoder="resnet50", head_channels=WIDTH, activation="leaky_relu", dilated_blocks="all"
)
TORCHVISION = ModelConfig(
    encoder="resnet50", head_channels=WIDTH, output_stride=8, eval_pooling=None, head="torchvision"
)


def same(found: dict[str, Tensor], model: Segmenter) -> None:
    """Check that the tensors are the network's, but for the counts of batches."""
    expected = {k: v for k, v in model.state_dict().items() if not k.endswith("tracked")}
    kept = {k: v for k, v in found.items() if not k.endswith("tracked")}
    assert kept.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(kept[name], value, rtol=1e-6, atol=1e-6)


@pytest.fixture(scope="module")
def papers() -> Segmenter:
    return varied(Segmenter(PAPERS, (3, 2)))


@pytest.mark.parametrize("in_place", [True, False])
def test_the_papers_names_become_ours_and_their_steps_one(papers: Segmenter, in_place: bool):
    state = as_papers(papers, in_place)
    assert layout_of(state) == "papers"
    assert guess_norm(state) == "in_place"
    found = to_own_names(
        state | {"pseudolabeler.0.weight": torch.zeros(1)},
        "papers",
        "in_place" if in_place else "plain",
    )
    joined = Segmenter(PAPERS, (5,))
    expected = papers.state_dict()
    for entry in ("weight", "bias"):
        both = [expected.pop(f"classifiers.{number}.{entry}") for number in (0, 1)]
        expected[f"classifiers.0.{entry}"] = torch.cat(both)
    joined.load_state_dict(expected)
    same(found, joined)
    assert describe_encoder(found) == {
        "encoder": "resnet50", "head_channels": WIDTH, "head": "papers"
    }  # fmt: skip


def test_torchvisions_names_become_ours():
    model = varied(Segmenter(TORCHVISION, (4,)))
    state = as_torchvision(model)
    assert layout_of(state) == "torchvision"
    found = to_own_names(state, "torchvision", "plain")
    same(found, model)
    assert describe_encoder(found)["head"] == "torchvision"


@torch.no_grad()
def test_the_head_computes_what_torchvisions_does():
    model = varied(Segmenter(TORCHVISION, (4,)))
    state = {k.removeprefix("classifier."): v for k, v in as_torchvision(model).items()}
    features = torch.rand(2, 2048, 30, 33)

    def norm(name: str, x: Tensor) -> Tensor:
        mean, variance, scale, shift = (
            state[f"{name}.{entry}"] for entry in ("running_mean", "running_var", "weight", "bias")
        )
        return F.relu(F.batch_norm(x, mean, variance, scale, shift))

    branches = [norm("0.convs.0.1", F.conv2d(features, state["0.convs.0.0.weight"]))]
    for number, rate in zip((1, 2, 3), (12, 24, 36), strict=True):
        convolved = F.conv2d(
            features, state[f"0.convs.{number}.0.weight"], padding=rate, dilation=rate
        )
        branches.append(norm(f"0.convs.{number}.1", convolved))
    pooled = F.conv2d(features.mean((2, 3), keepdim=True), state["0.convs.4.1.weight"])
    branches.append(norm("0.convs.4.2", pooled).expand(-1, -1, 30, 33))
    x = norm("0.project.1", F.conv2d(torch.cat(branches, 1), state["0.project.0.weight"]))
    expected = norm("2", F.conv2d(x, state["1.weight"], padding=1))
    head = model.head
    assert isinstance(head, Head)
    torch.testing.assert_close(head(features), expected, rtol=1e-4, atol=1e-4)


def test_other_names_are_of_no_layout():
    assert layout_of({"features.0.weight": torch.zeros(1)}) is None
    assert layout_of({}) is None
