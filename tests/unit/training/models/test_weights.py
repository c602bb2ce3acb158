"""Pretrained weights load from both formats; every wrong file gets one clear sentence."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.support.paths import SHARED
from training.models.backbones import Encoder
from training.models.mobilenet import mobilenet_v2
from training.models.resnet import resnet50
from training.models.weights import load_encoder_weights

IMAGENET = SHARED / "data" / "mobilenet_v2_imagenet.safetensors"


def _file(
    encoder: Encoder, extras: dict[str, Tensor], path: Path, prefix: str = ""
) -> dict[str, Tensor]:
    """Write the encoder's weights as torchvision would, with `extras`; return the encoder's own."""
    state = encoder.state_dict()
    everything = {prefix + name: value for name, value in (state | extras).items()}
    save_file(everything, path) if path.suffix == ".safetensors" else torch.save(everything, path)
    return state


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth", "digest-without-suffix"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_both_formats_load_and_classifiers_are_ignored(
    name: str, prefix: str, tmp_path: Path
) -> None:
    extras = {
        "classifier.1.weight": torch.zeros(1000, 1280),
        "features.18.0.weight": torch.zeros(1280, 320, 1, 1),
    }
    written = _file(mobilenet_v2(16), extras, tmp_path / name, prefix)
    encoder = mobilenet_v2(8, frozen=True)
    load_encoder_weights(encoder, tmp_path / name)
    torch.testing.assert_close(encoder.state_dict(), written, rtol=0, atol=0)


def test_files_that_do_not_count_batches_load(tmp_path: Path) -> None:
    state = {
        k: v for k, v in resnet50(16).state_dict().items() if not k.endswith("num_batches_tracked")
    }
    torch.save(
        state | {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)},
        tmp_path / "old.pth",
    )
    encoder = resnet50(8)
    load_encoder_weights(encoder, tmp_path / "old.pth")
    torch.testing.assert_close(encoder.layer4[2].conv3.weight, state["layer4.2.conv3.weight"])


def test_another_networks_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "resnet50.safetensors"
    _file(resnet50(16), {}, path)
    with pytest.raises(
        ValueError,
        match=r"resnet50.safetensors does not hold weights of a MobileNetV2: "
        r"255 missing \(features\.0",
    ):
        load_encoder_weights(mobilenet_v2(16), path)


def test_misshaped_and_missing_weights_are_named_and_nothing_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "wide.safetensors"
    state = resnet50(16).state_dict()
    del state["layer2.0.bn1.weight"]
    save_file(state | {"conv1.weight": torch.zeros(64, 4, 7, 7)}, path)
    encoder = resnet50(16)
    before = encoder.conv1.weight.clone()
    with pytest.raises(
        ValueError,
        match=r"1 missing \(layer2\.0\.bn1\.weight\); 1 misshaped \(conv1\.weight \(64, 4, 7, 7\)",
    ):
        load_encoder_weights(encoder, path)
    assert torch.equal(encoder.conv1.weight, before)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"# not weights\n",
        b"\x40\0\0\0\0\0\0\0{broken",
        b"PK\x03\x04 a broken archive",
        b"\x80\x04\x95 a broken pickle",
    ],
)
def test_files_of_something_else_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\.pth is not a (readable )?file of weights"):
        load_encoder_weights(mobilenet_v2(16), path)


def test_weights_within_a_checkpoint_load(tmp_path: Path) -> None:
    state = mobilenet_v2(16).state_dict()
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "checkpoint.pth.tar")
    encoder = mobilenet_v2(16)
    load_encoder_weights(encoder, tmp_path / "checkpoint.pth.tar")
    torch.testing.assert_close(encoder.state_dict(), state, rtol=0, atol=0)


def test_a_checkpoint_of_something_else_or_a_pickled_object_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "model": {}}, tmp_path / "checkpoint.pth")
    torch.save(Path("/"), tmp_path / "object.pth")
    for name in ("checkpoint.pth", "object.pth"):
        with pytest.raises(ValueError, match=r"is not a (readable )?file of weights"):
            load_encoder_weights(mobilenet_v2(16), tmp_path / name)


@pytest.mark.shared
@pytest.mark.skipif(
    not IMAGENET.exists(), reason="the optional folder of real weights (STEPCHAIN_SHARED) is absent"
)
def test_real_imagenet_weights_load_and_give_features_of_ordinary_size() -> None:
    encoder = mobilenet_v2(16, frozen=True)
    load_encoder_weights(encoder, IMAGENET)
    state = load_file(IMAGENET)
    assert torch.equal(
        encoder.state_dict()["features.17.conv.2.weight"], state["features.17.conv.2.weight"]
    )
    with torch.no_grad():
        features = encoder(torch.randn(2, 3, 64, 64))
    assert 0.1 < features.std() < 10
