"""A model on an encoder of Transformers notices a version that computes otherwise."""

from pathlib import Path

import pytest
import torch

from tests.support.encoders import small_model
from training.checkpoint import ModelDocument, freeze, load_model, save_model_files
from training.config import InputError, ModelConfig
from training.models.segmenter import Segmenter

pytest.importorskip("transformers")


def published(folder: Path, model: ModelConfig) -> Path:
    torch.manual_seed(0)
    segmenter = freeze(Segmenter(model, (3,)))
    document = ModelDocument(model=model, groups=((1, 2),))
    save_model_files(folder, document, segmenter.state_dict(), {}, [])
    return folder


@pytest.mark.parametrize("kind", ["dinov2", "swin"])
def test_a_version_that_computes_otherwise_is_refused(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = published(tmp_path, small_model(kind))
    _, document = load_model(folder)
    assert document.features is not None
    assert len(document.features) == 8
    exact = torch.nn.functional.gelu
    monkeypatch.setattr(
        torch.nn.functional,
        "gelu",
        lambda x, approximate="none": exact(x, approximate="tanh") + 0.001,
    )
    with pytest.raises(InputError, match=r"^Transformers 5\S* computes other features of this"):
        load_model(folder)


def test_an_encoder_of_ours_says_nothing(tmp_path: Path) -> None:
    tiny = ModelConfig(encoder="tiny", output_stride=4, head_channels=4)
    assert load_model(published(tmp_path, tiny))[1].features is None
