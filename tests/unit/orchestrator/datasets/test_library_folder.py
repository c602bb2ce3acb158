"""Encoders of Transformers come from folders in that library's layout, and are checked there."""

import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from orchestrator.datasets.pretrained import PretrainedWeights
from orchestrator.records import layout
from orchestrator.store.base import Store
from orchestrator.store.cache import file_sha256
from orchestrator.store.open import open_store
from stepchain.encoders import library_model
from tests.support.encoders import SMALL, small_model
from tests.support.servers import serve_folder
from training.backbone import IMAGENET_MEAN
from training.config import InputError, ModelConfig
from training.models.backbones import build_encoder
from training.models.weights import load_encoder_weights

transformers = pytest.importorskip("transformers")
# What is written of an encoder, and the library's backbone of it.
CLASSES = {
    "swin": ("SwinForImageClassification", "SwinBackbone"),
    "dinov2": ("Dinov2Model", "Dinov2Backbone"),
}
BARE = ModelConfig(encoder="transformers", eval_pooling=None)


def write_folder(folder: Path, kind: str, seed: int = 0, **changes: Any) -> Path:
    """Write a classifier on a small encoder as the library does."""
    torch.manual_seed(seed)
    configuration = transformers.AutoConfig.for_model(kind, **(SMALL[kind] | changes))
    getattr(transformers, CLASSES[kind][0])(configuration).save_pretrained(folder)
    return folder


@pytest.fixture
def swin(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "swin", "swin")


def refused(message: str, source: str | Path, model: ModelConfig) -> None:
    with PretrainedWeights(str(source)) as weights, pytest.raises(InputError, match=message):
        weights.complete(model)


def publish_weights(store: Store, source: Path, model: ModelConfig) -> ModelConfig:
    with PretrainedWeights(str(source)) as weights:
        complete = weights.complete(model)
        weights.publish(store)
    return complete


@pytest.mark.parametrize("kind", ["swin", "dinov2"])
def test_a_model_gets_encoder_and_weights_of_a_folder(tmp_path: Path, kind: str) -> None:
    folder = write_folder(tmp_path / "folder", kind)
    store = open_store(str(tmp_path / "store"))
    model = publish_weights(store, folder, BARE)
    expected = small_model(kind, head_channels=256)
    assert model.model_copy(update={"weights": None}) == expected
    assert model == publish_weights(store, folder, expected), "it may be named before"
    assert model.weights is not None
    assert model.weights == file_sha256(folder / "model.safetensors")
    stored = tmp_path / "stored"
    store.download(layout.encoder_weights(model.weights), stored)
    encoder = build_encoder(model)
    load_encoder_weights(encoder, stored)
    images = torch.randn(1, 3, 224, 224)
    library = getattr(transformers, CLASSES[kind][1]).from_pretrained(str(folder))
    with torch.no_grad():
        (expected_map,) = library.eval()(images).feature_maps
        torch.testing.assert_close(encoder(images), expected_map)


def test_colours_come_from_the_folder(swin: Path) -> None:
    colours = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.5, 0.5], "do_rescale": True}
    (swin / "preprocessor_config.json").write_text(json.dumps(colours))
    backbone = library_model(swin, maps=["stage3"]).backbone
    assert backbone is not None
    assert (backbone.mean, backbone.std) == ((0.5,) * 3, (0.25, 0.5, 0.5))
    refused(r"the images of .* have mean \(0\.5", swin, small_model("swin"))
    (swin / "preprocessor_config.json").write_text('{"do_rescale": false}')
    refused(r"not brought to 0\.\.1", swin, BARE)


@pytest.mark.parametrize(
    ("said", "mean"),
    [
        ({"image_mean": None, "rescale_factor": None}, IMAGENET_MEAN),
        ({"image_mean": 0.5}, (0.5,) * 3),
    ],
)
def test_colours_may_be_left_open_or_be_one_number(
    swin: Path, said: dict[str, Any], mean: tuple[float, ...]
) -> None:
    (swin / "preprocessor_config.json").write_text(json.dumps(said | {"image_std": 0.25}))
    backbone = library_model(swin).backbone
    assert backbone is not None
    assert (backbone.mean, backbone.std) == (mean, (0.25,) * 3)
    (swin / "preprocessor_config.json").write_text('{"rescale_factor": "1/255"}')
    refused(r"not brought to 0\.\.1", swin, BARE)


def test_a_configuration_may_begin_with_a_byte_order_mark(swin: Path) -> None:
    expected = library_model(swin)
    text = (swin / "config.json").read_text()
    (swin / "config.json").write_text(text, encoding="utf-8-sig")
    assert library_model(swin) == expected


def test_a_description_is_complete_and_follows_the_maps() -> None:
    model = library_model({"model_type": "swin", **SMALL["swin"]}, maps=["stage2", "stage3"])
    assert model.output_stride == 8
    assert model.backbone == small_model("swin", "stage2", "stage3", output_stride=8).backbone
    linear = library_model({"model_type": "dinov2", **SMALL["dinov2"]}, head="linear")
    assert (linear.head_channels, linear.eval_pooling) == (16, None)


def test_weights_that_do_not_fit_are_one_sentence(swin: Path, tmp_path: Path) -> None:
    path = swin / "model.safetensors"
    state = load_file(path)
    name = "swin.encoder.layers.0.blocks.0.attention.self.query.weight"
    save_file({n: v for n, v in state.items() if n != name}, path)
    refused(r"does not hold the weights of this swin: 1 missing \(swin\..*q_proj", swin, BARE)
    save_file(state | {name: torch.zeros(8, 9)}, path)
    refused(r"1 misshaped \(swin\..*q_proj\.weight \(8, 9\) instead of \(8, 8\)\)", swin, BARE)
    path.unlink()
    refused(r"has no model\.safetensors: load the encoder by Transformers", swin, BARE)
    refused(r"has no config\.json", tmp_path / "nowhere", BARE)


def test_a_folder_of_another_encoder_is_one_sentence(swin: Path, tmp_path: Path) -> None:
    wider = write_folder(tmp_path / "wider", "swin", embed_dim=16)
    refused(r"has embed_dim 16, and the model's encoder has 8", wider, small_model("swin"))
    refused(r"is a folder, which is for the encoder transformers", swin, ModelConfig())
    config = json.loads((swin / "config.json").read_text())
    (swin / "config.json").write_text(json.dumps(config | {"model_type": "hologram"}))
    refused(r"has no backbone 'hologram'", swin, BARE)


def test_each_encoder_takes_the_source_that_fits(swin: Path, tmp_path: Path) -> None:
    dinov2 = write_folder(tmp_path / "dinov2", "dinov2")
    with PretrainedWeights(str(swin), str(dinov2)) as weights:
        for kind, folder in (("dinov2", dinov2), ("swin", swin)):
            found = weights.complete(small_model(kind)).weights
            assert found == file_sha256(folder / "model.safetensors")
        with pytest.raises(
            InputError, match=r"none of the encoder weights fits the encoder 'tiny'"
        ):
            weights.complete(ModelConfig(encoder="tiny", output_stride=4))


def test_a_folder_may_be_at_a_uri(swin: Path) -> None:
    with serve_folder(swin.parent) as server, PretrainedWeights(f"{server}/swin") as weights:
        with pytest.raises(InputError, match="is not a file of weights"):
            weights.complete(ModelConfig())
        found = weights.complete(BARE)
    assert found.weights == file_sha256(swin / "model.safetensors")
    with PretrainedWeights(swin.as_uri()) as weights:
        assert weights.complete(BARE) == found


@pytest.mark.parametrize("endpoint", ["", "hf-mirror.com"])
def test_a_hub_at_no_address_is_one_sentence_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    refused(rf"HF_ENDPOINT is '{endpoint}', .*: unset it", "hf://some/encoder", BARE)
    monkeypatch.setenv("HF_ENDPOINT", "https://127.0.0.1/a b")
    refused(r"the hub at https://127\.0\.0\.1/a b cannot be reached", "hf://some/encoder", BARE)


@pytest.mark.parametrize("model", [BARE, ModelConfig()])
def test_an_address_with_a_blank_is_one_sentence(model: ModelConfig) -> None:
    refused(r"cannot read https://127\.0\.0\.1:1/a b", "https://127.0.0.1:1/a b", model)


@pytest.mark.parametrize("answers", [False, True])
def test_a_hub_that_cannot_be_reached_is_one_sentence_soon(
    monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    """Nobody listens, or a server takes the connection and says nothing."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if answers:
            silent.listen()
            monkeypatch.setattr("orchestrator.datasets.library_folder.HUB_SECONDS", 1)
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        refused(r"the hub at .* cannot be reached for hf://some/encoder", "hf://some/encoder", BARE)
        assert time.monotonic() - began < 15
