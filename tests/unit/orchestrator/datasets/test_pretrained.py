"""Encoder weights are stored as safetensors; files of other formats are converted."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from orchestrator.datasets.pretrained import PretrainedWeights, fetch_file
from orchestrator.records import layout
from orchestrator.store.base import Store
from orchestrator.store.cache import file_sha256
from orchestrator.store.open import open_store
from tests.support.servers import serve_folder
from training.config import InputError, ModelConfig
from training.models.mobilenet import mobilenet_v2
from training.models.weights import load_encoder_weights

MODEL = ModelConfig(encoder="mobilenet_v2", output_stride=8)
CLASSIFIER = {"classifier.1.weight": torch.zeros(2, 1280)}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def publish_weights(store: Store, source: Path, model: ModelConfig) -> ModelConfig:
    with PretrainedWeights(str(source)) as weights:
        complete = weights.complete(model)
        weights.publish(store)
    return complete


def test_safetensors_are_stored_as_they_are(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(mobilenet_v2(16).state_dict() | CLASSIFIER, path)
    digest = publish_weights(store, path, MODEL).weights
    assert digest is not None
    assert digest == file_sha256(path)
    assert store.read(layout.encoder_weights(digest)) == path.read_bytes()


def test_other_formats_are_stored_as_safetensors_of_the_encoder(
    store: Store, tmp_path: Path
) -> None:
    state = mobilenet_v2(16).state_dict()
    torch.save(state | CLASSIFIER, tmp_path / "weights.pth")
    torch.save(
        {"epoch": 1, "state_dict": {f"module.{name}": value for name, value in state.items()}},
        tmp_path / "other.tar",
    )
    digest = publish_weights(store, tmp_path / "weights.pth", MODEL).weights
    assert digest is not None
    assert publish_weights(store, tmp_path / "other.tar", MODEL).weights == digest, (
        "the same weights are one object"
    )
    stored = tmp_path / "stored"
    store.download(layout.encoder_weights(digest), stored)
    assert file_sha256(stored) == digest
    torch.testing.assert_close(load_file(stored), dict(state), rtol=0, atol=0)
    encoder = mobilenet_v2(16)
    load_encoder_weights(encoder, stored)
    torch.testing.assert_close(encoder.state_dict(), state, rtol=0, atol=0)


def test_weights_at_an_address_need_no_ending(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "files" / "content"
    (path.parent / "folder").mkdir(parents=True)
    save_file(mobilenet_v2(16).state_dict() | CLASSIFIER, path)
    with serve_folder(path.parent) as address:
        with PretrainedWeights(f"{address}/content") as weights:
            assert weights.complete(MODEL).weights == file_sha256(path)
        for name, reason in (
            ("absent", "no file of weights at"),
            ("folder", "is not a file of weights"),
            ("folder/", "is a folder, which is for the encoder transformers"),
        ):
            with (
                PretrainedWeights(f"{address}/{name}") as weights,
                pytest.raises(InputError, match=reason),
            ):
                weights.complete(MODEL)


@pytest.mark.s3
def test_weights_in_a_bucket_need_no_ending(moto_bucket: str, tmp_path: Path) -> None:
    open_store(f"s3://{moto_bucket}/weights").write("resnet101", b"tensors")
    assert fetch_file(f"s3://{moto_bucket}/weights/resnet101", tmp_path).read_bytes() == b"tensors"
    with pytest.raises(InputError, match=r"no file of weights at s3://.*/weights/dinov2$"):
        fetch_file(f"s3://{moto_bucket}/weights/dinov2", tmp_path)
