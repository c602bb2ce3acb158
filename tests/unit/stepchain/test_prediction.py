"""A published step predicts what its evaluation would, at the size of the image."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from orchestrator.records import layout
from orchestrator.store.base import Store
from stepchain import InputError, PublishedStep, find_step, load_model, predict
from training.evaluate import predict as predict_pixels
from training.predictor import Predictor, load_predictor


@pytest.fixture
def step(published: Store) -> PublishedStep:
    """Return the second step of a chain, with an untrained model."""
    return find_step(published, "demo:1")


def image_of(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_a_loaded_model_is_ready(step: PublishedStep):
    model = load_model(step)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_prediction_is_the_evaluations(step: PublishedStep):
    """This chain scores images as they are, so the labels are the evaluation's to the bit."""
    image = image_of(64, 80)
    (labels,) = predict(step, [image])
    class_ids = torch.tensor(list(step.class_names), dtype=torch.uint8)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    expected = predict_pixels(load_model(step), pixels, class_ids)[0].numpy()
    np.testing.assert_array_equal(labels, expected)
    assert set(np.unique(labels).tolist()) <= set(step.class_names)


def test_a_prediction_has_the_steps_precision(step: PublishedStep, monkeypatch: pytest.MonkeyPatch):
    document = step.result.record.step
    optimization = document.optimization.model_copy(update={"precision": "bfloat16"})
    document = document.model_copy(update={"optimization": optimization})
    record = step.result.record.model_copy(update={"step": document})
    asked = []

    def load(*arguments: Any) -> Predictor:
        asked.append(arguments[2])
        return load_predictor(*arguments)

    monkeypatch.setattr("stepchain.prediction.load_predictor", load)
    predict(replace(step, result=replace(step.result, record=record)), [image_of(48, 64)])
    assert asked == ["bfloat16"]


def test_images_are_files_or_pixels_of_any_size(step: PublishedStep, tmp_path: Path):
    small = image_of(48, 64)
    path = tmp_path / "large.png"
    cv2.imwrite(str(path), cv2.cvtColor(image_of(96, 72), cv2.COLOR_RGB2BGR))
    found = predict(step, [small, path, str(path)])
    assert [labels.shape for labels in found] == [(48, 64), (96, 72), (96, 72)]
    assert {labels.dtype for labels in found} == {np.dtype(np.uint8)}
    np.testing.assert_array_equal(found[1], found[2])


def test_a_resized_view_is_predicted_at_the_images_own_size(step: PublishedStep):
    evaluation = step.result.evaluation
    view = evaluation.config.model_copy(update={"short_side": 32, "crop": 32})
    object.__setattr__(step.result, "evaluation", evaluation.model_copy(update={"config": view}))
    (labels,) = predict(step, [image_of(64, 96)])
    assert labels.shape == (64, 96)


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), "absent.png"],
    ids=["gray", "float", "absent"],
)
def test_what_is_no_image_is_refused(step: PublishedStep, image: np.ndarray | str):
    with pytest.raises(InputError, match=r"uint8 \[H, W, 3\]|cannot be read"):
        predict(step, [image])


def test_a_damaged_model_is_refused(step: PublishedStep):
    record = step.result.record
    name = layout.published_file(record.key, record.attempt, "model.safetensors")
    step.store.write(name, b"damaged")
    with pytest.raises(InputError, match="missing or damaged"):
        load_model(step)
