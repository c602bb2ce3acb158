"""Stitching against what must come out: a model with itself, a permuted layer, a linear map."""

import copy

import pytest
import torch
from torch import nn

from training.config import ModelConfig
from training.models.segmenter import Segmenter
from training.probes.stitching import (
    CLASSIFIER,
    identity_joint,
    least_squares_joint,
    parts,
    run_parts,
    train_joint,
)

ENCODERS = {"tiny": 4, "mobilenet_v2": 16, "resnet50": 16}


def model(encoder: str = "tiny", channels: tuple[int, ...] = (4,), seed: int = 0) -> Segmenter:
    torch.manual_seed(seed)
    config = ModelConfig.model_validate(
        {
            "encoder": encoder,
            "output_stride": ENCODERS[encoder],
            "head_channels": 8,
            "eval_pooling": None,
        }
    )
    segmenter = Segmenter(config, channels)
    # Statistics must not be those of a fresh network.
    for module in segmenter.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn(module.num_features) * 0.1
            module.running_var = torch.rand(module.num_features) + 0.5
    return segmenter.eval().requires_grad_(False)


def images(count: int = 2, side: int = 32) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_parts_in_order_are_the_network(encoder: str):
    network = model(encoder, (4, 2))
    torch.testing.assert_close(run_parts(network, images()), network(images()).logits)
    assert next(iter(parts(network))) == "stem"
    assert list(parts(network))[-2:] == ["head", CLASSIFIER]


@pytest.mark.parametrize("cut", ["stem", "stage 1", "stage 2", "head", CLASSIFIER])
def test_a_model_stitched_to_itself_is_itself(cut: str):
    network = model()
    features = run_parts(network, images(), upto=cut)
    whole = network(images()).logits
    same = identity_joint(features.shape[1], features.shape[1])
    torch.testing.assert_close(run_parts(network, same(features), after=cut), whole)
    fitted = least_squares_joint([(features, features)])
    torch.testing.assert_close(
        run_parts(network, fitted(features), after=cut), whole, rtol=1e-3, atol=1e-3
    )


def test_a_permuted_layer_is_recovered():
    earlier = model()
    features = run_parts(earlier, images(), upto="head")
    order = torch.randperm(features.shape[1])
    joint = least_squares_joint(
        [(features[:1, order], features[:1]), (features[1:, order], features[1:])]
    )
    torch.testing.assert_close(joint(features[:, order]), features, rtol=1e-3, atol=1e-4)
    wanted = torch.eye(features.shape[1])[order].T
    # Anything can fit a channel that ReLU holds at zero.
    used = features.abs().amax((0, 2, 3)) > 1e-6
    torch.testing.assert_close(
        joint.weight[used, :, 0, 0][:, used[order]],
        wanted[used][:, used[order]],
        rtol=1e-3,
        atol=1e-3,
    )


def test_least_squares_is_numpys():
    x, y = images(3, 8), torch.randn(3, 5, 8, 8)
    joint = least_squares_joint([(x[:2], y[:2]), (x[2:], y[2:])])
    rows = torch.cat([x.permute(0, 2, 3, 1).reshape(-1, 3), torch.ones(192, 1)], 1).double()
    expected = torch.linalg.lstsq(rows, y.permute(0, 2, 3, 1).reshape(-1, 5).double()).solution
    torch.testing.assert_close(
        joint.weight[:, :, 0, 0].double().T, expected[:3], rtol=1e-5, atol=1e-6
    )
    assert joint.bias is not None
    torch.testing.assert_close(joint.bias.double(), expected[3], rtol=1e-5, atol=1e-6)


def test_a_later_models_new_classes_are_cut_off_at_the_logits():
    later = model(channels=(4, 2))
    logits = later(images()).logits
    torch.testing.assert_close(identity_joint(6, 4)(logits), logits[:, :4])


def test_training_brings_the_stitched_outputs_nearer():
    earlier, later = model(), model(seed=3)
    before = copy.deepcopy(earlier.state_dict())
    features = run_parts(later, images(), upto="stage 1")
    wanted = earlier(images()).logits
    joint = least_squares_joint([(features, run_parts(earlier, images(), upto="stage 1"))])

    def distance() -> float:
        return nn.functional.kl_div(
            run_parts(earlier, joint(features), after="stage 1").log_softmax(1),
            wanted.softmax(1),
            reduction="batchmean",
        ).item()

    start = distance()
    train_joint(
        joint,
        earlier,
        "stage 1",
        lambda: [(features, wanted, (32, 32))],
        epochs=20,
        learning_rate=1e-2,
    )
    assert distance() < start
    assert all(torch.equal(before[name], value) for name, value in earlier.state_dict().items())
