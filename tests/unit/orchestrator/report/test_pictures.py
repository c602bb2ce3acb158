"""Test that picture files keep class ids and pixels."""

import io

import numpy as np
from PIL import Image

from orchestrator.report.pictures import label_picture, palette, photo


def test_label_pictures_keep_the_ids_under_vocs_colours() -> None:
    labels = np.array([[0, 1, 2], [15, 20, 255]], np.uint8)
    image = Image.open(io.BytesIO(label_picture(labels)))
    assert np.array_equal(np.asarray(image), labels)
    colours = np.asarray(image.convert("RGB")).reshape(-1, 3).tolist()
    assert colours == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [192, 128, 128],
        [0, 64, 128],
        [255, 255, 255],
    ]


def test_vocs_palette_tells_all_its_classes_apart() -> None:
    assert len(np.unique(palette()[:255], axis=0)) == 255


def test_small_images_are_kept_exact() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(photo(pixels)))), pixels)
    assert Image.open(io.BytesIO(photo(np.zeros((300, 200, 3), np.uint8)))).format == "JPEG"
