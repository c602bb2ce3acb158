"""Test that pictures are always the same images, predicted by the published files."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from orchestrator.report.predictions import choose_images, take_pictures
from tests.support.datasets import build_dataset, open_split
from training.checkpoint import ModelDocument
from training.config import EvaluationConfig, ModelConfig
from training.data.digits import Digits
from training.data.shards import LocalSplit
from training.metrics import Confusion
from training.models.segmenter import Segmenter


def counts(images: list[list[int]]) -> Confusion:
    """Each image shows the classes listed, 100 pixels each, over 100 of background."""
    rows = [
        (image, truth, 0, 100) for image, classes in enumerate(images) for truth in (0, *classes)
    ]
    return Confusion(*np.array(rows).T)


def test_images_are_chosen_until_every_class_is_shown() -> None:
    chosen = choose_images(counts([[1], [1, 2], [3], [2], [3, 4], [5]]), [1, 2, 3, 4, 5], least=1)
    assert chosen == [1, 4, 5]


def test_another_round_fills_up_to_the_least_number() -> None:
    chosen = choose_images(counts([[1], [1, 2], [2], [1]]), [1, 2], least=3)
    assert chosen == [1, 0, 2]


def test_at_most_as_many_as_allowed_and_as_there_are() -> None:
    assert (
        len(choose_images(counts([[c] for c in range(1, 30)]), list(range(1, 30)), most=12)) == 12
    )
    assert choose_images(counts([[1], []]), [1, 2], least=6) == [0, 1]


def test_a_speck_does_not_count_as_shown_where_there_is_better() -> None:
    specks = Confusion(
        *np.array(
            [
                (0, 0, 0, 9999),
                (0, 1, 0, 1),
                (1, 0, 0, 900),
                (1, 1, 0, 100),
                (2, 0, 0, 9999),
                (2, 2, 0, 1),
            ]
        ).T
    )
    assert choose_images(specks, [1, 2], least=1) == [1, 2]


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> LocalSplit:
    folder = tmp_path_factory.mktemp("digits")
    manifest, _ = build_dataset(Digits(train=2, val=5), folder)
    return open_split(manifest, "val", folder)


def test_pictures_are_the_scored_view_and_the_files_predictions(digits, tmp_path) -> None:
    document = ModelDocument(
        model=ModelConfig(encoder="tiny", output_stride=4, head_channels=8, eval_pooling=4),
        groups=((7, 3),),
    )
    torch.manual_seed(0)
    model = Segmenter(document.model, document.channels)
    classifier = model.classifiers[0]
    assert isinstance(classifier, nn.Conv2d)
    assert classifier.bias is not None
    with torch.no_grad():
        # The model predicts the first class for every image.
        classifier.bias[1] += 1e6
    (tmp_path / "model.json").write_text(document.model_dump_json())
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    first, second = take_pictures(
        digits, [3, 1], EvaluationConfig(short_side=None, crop=48), [tmp_path, tmp_path]
    )
    assert (first.id, second.id) == (digits.index.ids[3], digits.index.ids[1])
    assert first.pixels.shape == (48, 48, 3)
    assert first.truth.shape == first.predictions[0].shape == (48, 48)
    assert len(first.predictions) == 2
    assert np.unique(first.predictions[0]).tolist() == [7]
    assert set(np.unique(first.truth)) <= {0, 255, *(np.flatnonzero(digits.index.labels[3]) + 1)}
