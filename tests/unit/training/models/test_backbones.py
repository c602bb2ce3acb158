"""Encoders have torchvision's names and sizes; dilation keeps what the strided network computes."""

from typing import Literal

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from training.config import ModelConfig
from training.models.backbones import build_encoder
from training.models.mobilenet import Depthwise, mobilenet_v2
from training.models.norm import BatchNorm
from training.models.resnet import resnet50, resnet101
from training.models.tiny import tiny


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_resnets_have_torchvisions_names_and_sizes() -> None:
    small, large = resnet50(16), resnet101(16)
    # torchvision counts 25,557,032 and 44,549,160, of which the classifier has 2,049,000.
    assert (_parameters(small), _parameters(large)) == (23_508_032, 42_500_160)
    shapes = {name: tuple(value.shape) for name, value in large.state_dict().items()}
    assert len(shapes) == 624  # 104 convolutions, and 104 norms of five entries
    assert shapes["conv1.weight"] == (64, 3, 7, 7)
    assert shapes["bn1.running_var"] == (64,)
    assert shapes["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert shapes["layer1.0.downsample.1.num_batches_tracked"] == ()
    assert shapes["layer3.22.conv2.weight"] == (256, 256, 3, 3)
    assert shapes["layer4.2.bn3.weight"] == (2048,)
    assert "layer4.1.downsample.0.weight" not in shapes


def test_mobilenet_has_torchvisions_names_and_sizes() -> None:
    encoder = mobilenet_v2(16)
    # torchvision counts 3,504,872: less the classifier (1,281,000) and features.18 (412,160).
    assert _parameters(encoder) == 1_811_712
    shapes = {name: tuple(value.shape) for name, value in encoder.state_dict().items()}
    assert shapes["features.0.0.weight"] == (32, 3, 3, 3)
    assert shapes["features.1.conv.0.0.weight"] == (32, 1, 3, 3)
    assert shapes["features.1.conv.1.weight"] == (16, 32, 1, 1)
    assert shapes["features.1.conv.2.running_mean"] == (16,)
    assert shapes["features.2.conv.0.1.weight"] == (96,)
    assert shapes["features.2.conv.1.0.weight"] == (96, 1, 3, 3)
    assert shapes["features.17.conv.2.weight"] == (320, 960, 1, 1)
    assert shapes["features.17.conv.3.bias"] == (320,)
    assert max(int(name.split(".")[1]) for name in shapes) == 17


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (ModelConfig(encoder="tiny", output_stride=4), (32, 17, 24)),
        (ModelConfig(encoder="mobilenet_v2", output_stride=16), (320, 5, 6)),
        (ModelConfig(encoder="mobilenet_v2", output_stride=8), (320, 9, 12)),
        (ModelConfig(encoder="resnet50", output_stride=16, activation="leaky_relu"), (2048, 5, 6)),
        (ModelConfig(encoder="resnet50", output_stride=8), (2048, 9, 12)),
    ],
)
def test_output_stride_decides_the_size_of_the_map(
    config: ModelConfig, shape: tuple[int, int, int]
) -> None:
    encoder = build_encoder(config).eval()
    with torch.no_grad():
        assert encoder(torch.randn(2, 3, 67, 95)).shape == (2, *shape)
    assert encoder.channels == shape[0]


def test_an_impossible_output_stride_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"'tiny' has no output stride 16: set model.output_stride to 4"
    ):
        build_encoder(ModelConfig(encoder="tiny", output_stride=16))
    with pytest.raises(ValueError, match="to 8 or 16"):
        build_encoder(ModelConfig(encoder="resnet50", output_stride=4))


@pytest.mark.parametrize(("encoder", "stride"), [("tiny", 4), ("mobilenet_v2", 16)])
def test_only_a_resnet_has_a_choice_of_dilated_blocks(encoder: str, stride: int) -> None:
    config = ModelConfig.model_validate(
        {"encoder": encoder, "output_stride": stride, "dilated_blocks": "all"}
    )
    with pytest.raises(ValueError, match=r"set model\.dilated_blocks to later"):
        build_encoder(config)


@pytest.mark.parametrize(
    ("blocks", "stride", "third", "fourth"),
    [
        ("later", 16, {1}, [1, 2, 2]),
        ("all", 16, {1}, [2, 2, 2]),
        ("later", 8, {1, 2}, [2, 4, 4]),
        ("all", 8, {2}, [4, 4, 4]),
    ],
)
def test_dilation_of_the_blocks_of_a_resnet(
    blocks: Literal["later", "all"], stride: int, third: set[int], fourth: list[int]
) -> None:
    encoder = resnet50(stride, dilated=blocks)

    def dilations(stage: nn.Sequential) -> list[int]:
        convolutions = [part for part in stage.modules() if isinstance(part, nn.Conv2d)]
        return [part.dilation[0] for part in convolutions if part.kernel_size == (3, 3)]

    assert set(dilations(encoder.layer3)) == third
    assert dilations(encoder.layer4) == fourth


@pytest.mark.parametrize("make", [mobilenet_v2, resnet50])
@pytest.mark.parametrize("size", [(64, 96), (50, 77)])
def test_a_dense_map_holds_the_strided_one(make, size: tuple[int, int]) -> None:
    """At half the output stride, every second cell is the strided network's, borders included."""
    encoders = {stride: make(stride).double().eval() for stride in (8, 16, 32)}
    state = encoders[32].state_dict()
    images = torch.randn(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        for encoder in encoders.values():
            encoder.load_state_dict(state)
        maps = {stride: encoder(images) for stride, encoder in encoders.items()}
    for dense, strided in ((8, 16), (16, 32)):
        torch.testing.assert_close(maps[dense][..., ::2, ::2], maps[strided], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("size", "dilation"), [((8, 8), 2), ((7, 10), 2), ((9, 11), 4), ((3, 2), 4)]
)
def test_phases_of_a_depthwise_convolution_are_the_dilated_one(
    size: tuple[int, int], dilation: int
) -> None:
    convolution = Depthwise(3, 1, dilation).double()
    images = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    inputs = images, convolution.weight
    by_phases = convolution(images)
    dilated = F.conv2d(images, convolution.weight, padding=dilation, dilation=dilation, groups=3)
    torch.testing.assert_close(by_phases, dilated, rtol=0, atol=1e-12)
    direction = torch.randn_like(dilated)
    expected = torch.autograd.grad(dilated, inputs, direction)
    torch.testing.assert_close(
        torch.autograd.grad(by_phases, inputs, direction), expected, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("name", ["tiny", "mobilenet_v2", "resnet50"])
def test_frozen_encoder_never_updates_statistics(name: str) -> None:
    config = ModelConfig.model_validate(
        {"encoder": name, "output_stride": 4 if name == "tiny" else 8, "encoder_norm": "frozen"}
    )
    encoder = build_encoder(config).train()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    images = torch.randn(2, 3, 32, 32)
    features = encoder(images)
    features.square().mean().backward()
    torch.testing.assert_close(encoder.state_dict(), before, rtol=0, atol=0)
    torch.testing.assert_close(encoder.eval()(images), features, rtol=0, atol=0)
    assert all(parameter.grad is not None for parameter in encoder.parameters())
    assert all(not norm.training for norm in encoder.modules() if isinstance(norm, BatchNorm))


def test_a_cell_of_the_tiny_encoder_sees_more_than_a_digit() -> None:
    encoder = tiny(frozen=True).double()
    image = torch.randn(1, 3, 96, 96, dtype=torch.float64, requires_grad=True)
    encoder(image)[0, :, 12, 12].square().sum().backward()
    assert image.grad is not None
    seen = image.grad.abs().sum((0, 1)) > 0
    assert int(seen.any(0).sum()) >= 40
    assert int(seen.any(1).sum()) >= 40


@pytest.mark.parametrize(
    ("config", "shapes"),
    [
        (ModelConfig(encoder="tiny", output_stride=4), [(32, 12, 8), (32, 12, 8)]),
        (
            ModelConfig(encoder="mobilenet_v2", output_stride=16),
            [(24, 12, 8), (32, 6, 4), (96, 3, 2), (320, 3, 2)],
        ),
        (
            ModelConfig(encoder="resnet50", output_stride=8),
            [(256, 12, 8), (512, 6, 4), (1024, 6, 4), (2048, 6, 4)],
        ),
    ],
    ids=lambda value: value.encoder if isinstance(value, ModelConfig) else "",
)
def test_stages_are_the_features_and_the_maps_before_activation(
    config: ModelConfig, shapes: list[tuple[int, int, int]]
) -> None:
    encoder = build_encoder(config).double().eval()
    images = torch.randn(2, 3, 48, 32).double()
    features, stages = encoder.stages(images)
    torch.testing.assert_close(features, encoder(images), rtol=0, atol=0)
    assert [tuple(stage.shape[1:]) for stage in stages] == shapes
    if config.encoder == "mobilenet_v2":
        assert torch.equal(stages[-1], features)
        return
    assert all((stage < 0).any() for stage in stages), "an activation in place has not reached them"
    assert torch.equal(stages[-1].relu(), features)
    torch.stack([stage.sum() for stage in stages]).sum().backward()


def test_stages_of_a_resnet_follow_one_another() -> None:
    encoder = resnet50(16).double().eval()
    images = torch.randn(1, 3, 32, 32).double()
    _, (first, second, *_) = encoder.stages(images)
    assert torch.equal(encoder.layer1(encoder.stem(images)), first.relu())
    assert torch.equal(encoder.layer2(first.relu()), second.relu())
