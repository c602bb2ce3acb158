"""The parts of an encoder of Transformers, one after another, are the whole."""

import pytest
import torch

from tests.support.encoders import SMALL, small_model
from training.checkpoint import freeze
from training.models.segmenter import Segmenter
from training.probes.stitching import (
    identity_joint,
    least_squares_joint,
    parts,
    run_parts,
    train_joint,
)

pytest.importorskip("transformers")
SIZE = (70, 100)


def model(kind: str, seed: int = 0) -> Segmenter:
    torch.manual_seed(seed)
    return freeze(Segmenter(small_model(kind), (3,)))


@pytest.mark.parametrize("kind", sorted(SMALL))
def test_the_network_cut_anywhere_and_joined_is_the_whole(kind: str) -> None:
    network = model(kind)
    images = torch.randn(2, 3, *SIZE)
    whole = network(images).logits
    names = list(parts(network))
    assert names == ["stage 1", "stage 2", "stage 3", "stage 4", "head", "classifier"]
    for cut in names[:-1]:
        state = run_parts(network, images, upto=cut)
        same = identity_joint(state.shape[1], state.shape[1])
        joined = run_parts(network, same(state), after=cut, size=SIZE)
        torch.testing.assert_close(joined, whole, msg=lambda text, cut=cut: f"{cut}: {text}")
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_what_the_network_reads_stops_at_the_first_map() -> None:
    network = Segmenter(small_model("swin", "stage2", "stage4", output_stride=8), (3,))
    assert list(parts(network)) == ["stage 1", "stage 2", "head", "classifier"]
    early = Segmenter(small_model("swin", "stage1", "stage4", output_stride=4), (3,))
    assert list(parts(early)) == ["encoder", "head", "classifier"]


def test_a_joint_is_trained_between_two_encoders() -> None:
    earlier, later = model("dinov2", 1), model("dinov2", 2)
    images = torch.randn(4, 3, *SIZE)
    features = run_parts(later, images, upto="stage 2")
    wanted = earlier(images).logits
    joint = least_squares_joint([(features, run_parts(earlier, images, upto="stage 2"))])

    def distance() -> float:
        with torch.no_grad():
            logits = run_parts(earlier, joint(features), after="stage 2", size=SIZE)
        return torch.nn.functional.kl_div(
            logits.log_softmax(1), wanted.softmax(1), reduction="sum"
        ).item()

    before = distance()
    batches = [(features, wanted, SIZE)]
    train_joint(joint, earlier, "stage 2", lambda: batches, epochs=5, learning_rate=1e-3)
    assert distance() < before
