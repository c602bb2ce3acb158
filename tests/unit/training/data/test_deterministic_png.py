import hashlib
import io

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from training.data.deterministic_png import encode_mask
from training.data.transforms import decode_mask


def runs(seed: int, height: int, width: int) -> np.ndarray:
    """Return horizontal runs of all lengths, with a few values."""
    rng = np.random.default_rng(seed)
    values = np.repeat(
        rng.integers(0, 256, height * width, np.uint8), rng.integers(1, 700, height * width)
    )
    return values[: height * width].reshape(height, width)


@given(mask=arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 30))))
@settings(max_examples=100, deadline=None)
def test_any_pixels_are_read_back(mask: np.ndarray):
    np.testing.assert_array_equal(decode_mask(encode_mask(mask)), mask)


def test_runs_of_every_length_are_read_back_by_every_reader():
    for width in range(1, 600):
        row = np.full((1, width), width % 256, np.uint8)
        np.testing.assert_array_equal(decode_mask(encode_mask(row)), row)
    mask = runs(0, 90, 701)
    data = encode_mask(mask)
    np.testing.assert_array_equal(decode_mask(data), mask)
    np.testing.assert_array_equal(
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), mask
    )
    with Image.open(io.BytesIO(data)) as picture:
        picture.verify()


def test_the_bytes_never_change():
    digest = hashlib.sha256(
        encode_mask(runs(1, 60, 80)) + encode_mask(np.full((7, 1000), 255, np.uint8))
    ).hexdigest()
    assert digest == "e16e6f0740ca7bd78b2c386096acf45790bbf3bdefd57736715fc2bb84abce28", (
        "step keys cover these bytes: changing them retrains everything on COCO and ADE20K"
    )


def test_a_mask_takes_few_bytes():
    mask = np.zeros((375, 500), np.uint8)
    mask[100:300, 200:400] = 15
    assert len(encode_mask(mask)) < 4000
