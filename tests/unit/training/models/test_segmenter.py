"""The whole network: classifiers of all steps side by side, upsampling, normalisation."""

import zlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.support.paths import GOLDEN
from training.config import ModelConfig
from training.models.segmenter import Segmenter, normalise, upsample

TINY = ModelConfig(encoder="tiny", output_stride=4, head_channels=16, eval_pooling=16)


def test_logits_of_all_steps_side_by_side() -> None:
    network = Segmenter(TINY, (7, 2, 1)).eval()
    outputs = network(torch.randn(2, 3, 64, 48))
    assert outputs.features.shape == (2, 32, 16, 12)
    assert outputs.head.shape == (2, 16, 16, 12)
    assert outputs.logits.shape == (2, 10, 16, 12)
    torch.testing.assert_close(outputs.logits[:, 7:9], network.classifiers[1](outputs.head))


def test_a_later_step_loads_the_earlier_ones_weights_and_keeps_its_scores() -> None:
    images = torch.randn(1, 3, 32, 32)
    before, after = Segmenter(TINY, (4,)).eval(), Segmenter(TINY, (4, 2)).eval()
    missing, unexpected = after.load_state_dict(before.state_dict(), strict=False)
    assert (sorted(missing), unexpected) == (["classifiers.1.bias", "classifiers.1.weight"], [])
    torch.testing.assert_close(after(images).logits[:, :4], before(images).logits, rtol=0, atol=0)


def test_nothing_computed_is_overwritten_later() -> None:
    """Activations work in place; what the network returns must survive the layers that read it."""
    network = Segmenter(TINY, (4,)).train()
    outputs = network(torch.randn(2, 3, 32, 32))
    features, head = outputs.features.clone(), outputs.head.clone()
    network.head(outputs.features)
    network.classifiers[0](outputs.head)
    assert torch.equal(features, outputs.features)
    assert torch.equal(head, outputs.head)


def test_every_parameter_gets_a_gradient_in_bfloat16_too() -> None:
    for norm in ("batch", "frozen"):
        network = Segmenter(TINY.model_copy(update={"encoder_norm": norm}), (4, 2))
        with torch.autocast("cpu", torch.bfloat16):
            loss = network(torch.randn(4, 3, 32, 32)).logits.float().square().mean()
        loss.backward()
        assert all(parameter.grad is not None for parameter in network.parameters())
        assert all(
            value.dtype == torch.float32
            for value in network.state_dict().values()
            if value.is_floating_point()
        )


def test_memory_format_changes_nothing() -> None:
    config = ModelConfig(
        encoder="mobilenet_v2", output_stride=8, encoder_norm="frozen", head_channels=16
    )
    network = Segmenter(config, (3,)).double()
    images = torch.randn(2, 3, 40, 48, dtype=torch.float64)
    expected = network(images).logits
    # Torch's type stubs do not know that a module, too, takes a memory format.
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    found = network(images.contiguous(memory_format=torch.channels_last)).logits
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_one_classifier_conv_per_step_with_bias() -> None:
    for classifier, count in zip(Segmenter(TINY, (5, 3)).classifiers, (5, 3), strict=True):
        assert isinstance(classifier, nn.Conv2d)
        assert classifier.weight.shape == (count, 16, 1, 1)
        assert classifier.bias is not None


def test_upsample_interpolates_between_cell_centres() -> None:
    logits = torch.tensor([[[[0.0, 4.0]]]])
    torch.testing.assert_close(upsample(logits, (1, 4)), torch.tensor([[[[0.0, 1.0, 3.0, 4.0]]]]))


def test_normalise_centres_imagenets_mean() -> None:
    images = (
        torch.tensor([124, 116, 104, 255], dtype=torch.uint8)[:3]
        .reshape(1, 3, 1, 1)
        .expand(1, 3, 2, 2)
    )
    found = normalise(images, torch.float64)
    assert found.dtype == torch.float64
    assert found.abs().max() < 0.01
    white = normalise(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)).flatten()
    torch.testing.assert_close(white, torch.tensor([0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225]))


def _formula(name: str, value: Tensor) -> Tensor:
    """Return the weights that the golden numbers of the network were computed with."""
    phase = zlib.crc32(name.encode()) % 1000 / 100
    wave = np.sin(0.37 * np.arange(value.numel()) + phase).reshape(tuple(value.shape))
    if name.endswith("running_var"):
        values = 1 + 0.3 * np.abs(wave)
    elif value.ndim == 4:
        values = wave * np.sqrt(2 / value[0].numel())
    elif name.endswith("weight"):
        values = 1 + 0.3 * wave
    else:
        values = 0.1 * wave
    return torch.from_numpy(values)


def _golden_network(encoder: str, stride: int) -> Segmenter:
    config = ModelConfig.model_validate(
        {
            "encoder": encoder,
            "output_stride": stride,
            "eval_pooling": 96 // stride,
            "activation": "leaky_relu",
            "dilated_blocks": "all",
        }
    )
    network = Segmenter(config, (16, 5)).double()
    state = network.state_dict()
    floating = {name: value for name, value in state.items() if value.is_floating_point()}
    weights = {name: _formula(name, value) for name, value in floating.items()}
    network.load_state_dict(state | weights)
    return network


@torch.no_grad()
def _golden_outputs(network: Segmenter, images: Tensor) -> dict[str, Tensor]:
    outputs = network(images)
    return {"logits": outputs.logits, "features_mean": outputs.features.mean((2, 3))}


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize(
    ("encoder", "stride"), [("resnet50", 16), ("resnet50", 8), ("resnet101", 16)]
)
def test_the_network_is_that_of_the_papers_code(encoder: str, stride: int, mode: str) -> None:
    """With these weights batch statistics amplify rounding; the network's own response bounds it.

    In evaluation mode the response is far below 1e-12.
    """
    network = _golden_network(encoder, stride).train(mode == "train")
    images = torch.from_numpy(np.sin(0.11 * np.arange(2 * 3 * 96 * 96)).reshape(2, 3, 96, 96))
    ours = _golden_outputs(network, images)
    rounded = _golden_outputs(network, images * (1 + 1e-15))
    golden = np.load(GOLDEN / "network.npz")
    for name, value in ours.items():
        expected = torch.from_numpy(golden[f"{encoder}.stride{stride}.{mode}.{name}"])
        response = (rounded[name] - value).abs().max().item()
        assert response < 1e-3 * expected.abs().max()
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=max(response, 1e-12))


@pytest.mark.parametrize(
    ("encoder", "stride", "expected"),
    [
        ("tiny", 4, (0.16266602, 0.15173781, -0.21963775)),
        ("mobilenet_v2", 16, (-0.19909737, -0.17336035, -0.2287195)),
        ("resnet101", 16, (-0.10093272, 0.04534405, -0.09747562)),
    ],
)
def test_a_seed_gives_the_weights_that_published_steps_began_with(
    encoder: Any, stride: Any, expected: tuple[float, ...]
) -> None:
    """A part that is built too much draws random numbers, and moves all that is drawn after it."""
    torch.manual_seed(0)
    config = ModelConfig(encoder=encoder, output_stride=stride, head_channels=16)
    weight, _ = Segmenter(config, (3, 2)).classifiers[1].parameters()
    last = weight.detach().flatten()[:3]
    torch.testing.assert_close(last, torch.tensor(expected), rtol=0, atol=1e-6)
