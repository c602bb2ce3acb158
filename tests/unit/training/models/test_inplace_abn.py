"""A network of in-place ABN, computed by its own formula, is ours after conversion."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from training.config import InputError
from training.models.inplace_abn import from_inplace_abn, is_inplace_abn
from training.models.resnet import ResNet
from training.models.weights import load_encoder_weights

BLOCKS = (1, 2, 1, 1)


def state() -> dict[str, Tensor]:
    """Return random weights by the names of mapillary/inplace_abn.

    Some scales are negative, which the formula's |weight| undoes.
    """
    torch.manual_seed(0)
    made: dict[str, Tensor] = {}

    def convolution(name: str, inputs: int, outputs: int, side: int) -> None:
        made[f"{name}.weight"] = (
            torch.randn(outputs, inputs, side, side).double() / (inputs * side**2) ** 0.5
        )

    def norm(name: str, channels: int) -> None:
        made[f"{name}.weight"] = torch.randn(channels).double()
        made[f"{name}.bias"] = torch.randn(channels).double() / 3
        made[f"{name}.running_mean"] = torch.randn(channels).double() / 3
        made[f"{name}.running_var"] = torch.rand(channels).double() + 0.5

    convolution("mod1.conv1", 3, 64, 7)
    norm("mod1.bn1", 64)
    inputs = 64
    for stage, (count, width) in enumerate(zip(BLOCKS, (64, 128, 256, 512), strict=True), 2):
        for block in range(1, count + 1):
            name = f"mod{stage}.block{block}"
            for number, (before, after, side) in enumerate(
                ((inputs, width, 1), (width, width, 3), (width, 4 * width, 1)), 1
            ):
                convolution(f"{name}.convs.conv{number}", before, after, side)
                norm(f"{name}.convs.bn{number}", after)
            if block == 1:
                convolution(f"{name}.proj_conv", inputs, 4 * width, 1)
                norm(f"{name}.proj_bn", 4 * width)
            inputs = 4 * width
    return made | {
        "classifier.fc.weight": torch.zeros(1000, 2048),
        "classifier.fc.bias": torch.zeros(1000),
    }


def abn(x: Tensor, weights: dict[str, Tensor], name: str, activate: bool = True) -> Tensor:
    """Return in-place ABN at evaluation.

    act((x - mean) / sqrt(var + eps) * (|weight| + eps) + bias)
    """
    mean, var, weight, bias = (
        weights[f"{name}.{e}"][:, None, None]
        for e in ("running_mean", "running_var", "weight", "bias")
    )
    y = (x - mean) / (var + 1e-5).sqrt() * (weight.abs() + 1e-5) + bias
    return torch.where(y < 0, 0.01 * y, y) if activate else y


def features(weights: dict[str, Tensor], images: Tensor) -> Tensor:
    """Return what that network makes of images at output stride 32."""
    x = abn(
        F.conv2d(images, weights["mod1.conv1.weight"], stride=2, padding=3), weights, "mod1.bn1"
    )
    x = F.max_pool2d(x, 3, 2, 1)
    for stage, count in enumerate(BLOCKS, 2):
        for block in range(1, count + 1):
            name = f"mod{stage}.block{block}"
            stride = 2 if stage > 2 and block == 1 else 1
            shortcut = x
            if block == 1:
                shortcut = F.conv2d(x, weights[f"{name}.proj_conv.weight"], stride=stride)
                shortcut = abn(shortcut, weights, f"{name}.proj_bn", activate=False)
            for number, (here, padding, act) in enumerate(
                ((1, 0, True), (stride, 1, True), (1, 0, False)), 1
            ):
                x = F.conv2d(
                    x, weights[f"{name}.convs.conv{number}.weight"], stride=here, padding=padding
                )
                x = abn(x, weights, f"{name}.convs.bn{number}", act)
            x = F.leaky_relu(x + shortcut, 0.01)
    return x


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_converted_encoder_computes_what_in_place_abn_does(prefix: str, tmp_path: Path) -> None:
    weights = state()
    wrapped = {prefix + name: value for name, value in weights.items()}
    torch.save({"state_dict": wrapped, "epoch": 90}, tmp_path / "resnet_iabn_sync.pth.tar")
    encoder = ResNet(BLOCKS, 32, "leaky_relu").double().eval()
    load_encoder_weights(encoder, tmp_path / "resnet_iabn_sync.pth.tar")
    images = torch.randn(2, 3, 64, 96).double()
    expected = features(weights, images)
    torch.testing.assert_close(
        encoder(images), expected, rtol=1e-9, atol=1e-9 * expected.abs().max().item()
    )


def test_scales_are_written_out_and_nothing_else_is_changed() -> None:
    weights = state()
    converted = from_inplace_abn(weights)
    assert len(converted) == len(weights)
    assert is_inplace_abn(weights)
    assert not is_inplace_abn(converted)
    names = {
        "mod1.bn1.weight": "bn1.weight",
        "mod3.block2.convs.bn3.weight": "layer2.1.bn3.weight",
        "mod5.block1.proj_bn.weight": "layer4.0.downsample.1.weight",
    }
    for name, ours in names.items():
        torch.testing.assert_close(converted[ours], weights[name].abs() + 1e-5, rtol=0, atol=0)
    assert torch.equal(
        converted["layer4.0.downsample.0.weight"], weights["mod5.block1.proj_conv.weight"]
    )
    assert torch.equal(
        converted["layer2.1.conv2.weight"], weights["mod3.block2.convs.conv2.weight"]
    )
    assert torch.equal(converted["layer1.0.bn1.bias"], weights["mod2.block1.convs.bn1.bias"])


def test_another_activation_is_refused(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "iabn.pth")
    with pytest.raises(
        InputError,
        match=r"iabn\.pth was trained with leaky ReLU .*: set model\.activation to leaky_relu",
    ):
        load_encoder_weights(ResNet(BLOCKS, 16), tmp_path / "iabn.pth")
