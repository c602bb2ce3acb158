"""A predictor sees photos as an evaluation does, and takes any size."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.support.encoders import small_model
from training.checkpoint import ModelDocument, save_model_files
from training.config import EvaluationConfig, ModelConfig
from training.data.source import BadData
from training.data.transforms import evaluation_view
from training.evaluate import predict
from training.models.segmenter import Segmenter
from training.predictor import Predictor, at_size, load_predictor, whole_view

RNG = np.random.default_rng(0)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the files of an untrained model of the classes 4, 9 and then 2."""
    folder = tmp_path_factory.mktemp("model")
    config = ModelConfig(encoder="tiny", output_stride=4, head_channels=8, eval_pooling=8)
    document = ModelDocument(model=config, groups=((4, 9), (2,)))
    torch.manual_seed(0)
    model = Segmenter(config, document.channels)
    (folder / "model.json").write_text(document.model_dump_json())
    save_file(model.state_dict(), folder / "model.safetensors")
    return folder


@pytest.fixture
def predictor(folder: Path) -> Predictor:
    return load_predictor(folder, CPU, "float16", tile=130)


def photo(height: int, width: int) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


def test_views_are_predicted_as_an_evaluation_predicts_them(predictor: Predictor):
    views = [photo(40, 52), photo(40, 52)]
    found = predictor(views)
    batch = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2)
    expected = predict(predictor.trained.model, batch, predictor.trained.class_ids).numpy()
    np.testing.assert_array_equal(found, expected)
    assert {0, 2, 4, 9}.issuperset(np.unique(expected).tolist())


def test_a_cpu_does_not_round_and_tiles_begin_at_cells(predictor: Predictor):
    assert (predictor.trained.precision, predictor.tile) == ("float32", 128)


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (128, 128), (200, 300)])
def test_any_size_is_predicted(predictor: Predictor, size: tuple[int, int]):
    (labels,) = predictor([photo(*size)])
    assert labels.shape == size
    assert labels.dtype == np.uint8


def test_views_share_the_square_that_is_predicted_at_once(predictor: Predictor):
    assert predictor.capacity(photo(64, 64)) == 4
    assert predictor.capacity(photo(300, 300)) == 1
    assert predictor.capacity(photo(2, 2)) == 16


def test_a_view_is_resized_and_not_cropped():
    pixels = photo(60, 90)
    config = EvaluationConfig(short_side=30, crop=20)
    view = whole_view(pixels, config)
    whole = config.model_copy(update={"crop": None})
    np.testing.assert_array_equal(view, evaluation_view(pixels, None, whole)[0])
    assert view.shape == (30, 45, 3)


def test_a_narrow_photo_is_not_enlarged_without_end():
    with pytest.raises(BadData, match=r"3000 x 1 pixels, too many .* --short-side"):
        whole_view(photo(1, 3000), EvaluationConfig(short_side=512))
    assert whole_view(photo(1, 3000), EvaluationConfig(short_side=None)).shape == (1, 3000, 3)


def test_labels_return_to_the_photos_size():
    labels = np.array([[1, 2]], np.uint8)
    np.testing.assert_array_equal(at_size(labels, 2, 4), [[1, 1, 2, 2]] * 2)


@pytest.mark.parametrize(("kind", "tile"), [("dinov2", 126), ("swin", 128)])
def test_tiles_are_whole_cells_of_an_encoder_of_transformers(tmp_path: Path, kind: str, tile: int):
    pytest.importorskip("transformers")
    document = ModelDocument(model=small_model(kind), groups=((4, 9), (2,)))
    torch.manual_seed(0)
    weights = Segmenter(document.model, document.channels).state_dict()
    save_model_files(tmp_path, document, weights, {}, [])
    predictor = load_predictor(tmp_path, CPU, tile=130)
    assert predictor.tile == tile
    for size in ((1, 1), (3, 400), (200, 300)):
        (labels,) = predictor([photo(*size)])
        assert labels.shape == size
