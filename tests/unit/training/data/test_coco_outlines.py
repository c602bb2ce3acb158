from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from training.data.coco_outlines import NoOutline, rasterise, short_parts
from training.data.source import BadData

SQUARE = [[2, 2, 8, 2, 8, 8, 2, 8]]  # x, y of its corners
CROWD = {"size": [10, 12], "counts": [0, 60, 60]}  # the left half, column by column


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ({"size": [9, 12], "counts": [0, 54, 54]}, "the image is"),
        ({"size": [10, 12], "counts": [0, 60, 61]}, "cover 121 pixels"),
        ({"size": [10, 12], "counts": [0, 60]}, "cover 60 pixels"),
        ({"size": [10, 12], "counts": [-60, 180]}, "no count of pixels"),
        ({"size": [10, 12], "counts": [60.5, 59.5]}, "no count of pixels"),
        ({"size": [10, 12], "counts": [float("nan"), 120]}, "no count of pixels"),
        ({"size": [10, 12], "counts": ["a"]}, "neither numbers nor text"),
        ({"size": [10, 12]}, "neither numbers nor text"),
        ({"counts": [120]}, "for an image of None"),
        ("polygon", "neither polygons nor run lengths"),
        ([["a", "b", "c", "d", "e", "f"]], "holds something that is no number"),
        ([[2, 2, 8, 2, 8, 8, 2]], "7 coordinates, which are no pairs"),
        ([[float("nan"), 2, 8, 2, 8, 8]], r"\(nan, 2\), is no number"),
        ([[float("inf"), 2, 8, 2, 8, 8]], "lies far outside"),
        ([[1e9, 2, 8, 2, 8, 8]], r"\(1000000000.0, 2\), lies far outside of the image of 12 x 10"),
        ([[10**400, 2, 8, 2, 8, 8]], "lies far outside"),
        ([[0.1, 0.1, 0.9, 0.1, 0.9, 0.9]], "between 0 and 1: multiply them"),
        ([[0, 0, 12, 10] * 50_000], "pixels long, and at most 1000000 are drawn"),
    ],
)
def test_a_segmentation_that_is_none_is_refused(segmentation: Any, reason: str):
    with pytest.raises(BadData, match=reason):
        rasterise(segmentation, 10, 12)


@pytest.mark.parametrize("segmentation", [None, [], {}, [[]], [[5, 5, 4, 4]], [5, 5, 4, 4]])
def test_an_object_may_have_no_outline(segmentation: Any):
    with pytest.raises(NoOutline):
        rasterise(segmentation, 10, 12)


def test_polygons_in_parts_plain_and_packed_runs_are_pixels():
    parts = rasterise([*SQUARE, [9, 9, 11, 9, 11, 10, 9, 10]], 10, 12)
    assert parts[3, 3]
    assert parts[9, 10]
    assert not parts[0, 0]
    plain = rasterise(CROWD, 10, 12)
    assert plain.sum() == 60
    packed: Any = coco_mask.encode(np.asfortranarray(plain.astype(np.uint8)))
    text = {"size": [10, 12], "counts": packed["counts"].decode()}
    np.testing.assert_array_equal(rasterise(text, 10, 12), plain)


def test_a_part_of_two_points_draws_nothing_and_is_counted():
    with_line = [*SQUARE, [1, 1, 9, 9]]
    np.testing.assert_array_equal(rasterise(with_line, 10, 12), rasterise(SQUARE, 10, 12))
    assert short_parts(with_line) == 1
    assert short_parts(SQUARE) == short_parts(CROWD) == 0


def test_one_polygon_may_lack_the_list_around_it():
    np.testing.assert_array_equal(rasterise(SQUARE[0], 10, 12), rasterise(SQUARE, 10, 12))


@pytest.mark.parametrize("seed", range(5))
def test_packed_runs_are_those_of_cocos_library(seed: int):
    pixels = np.random.default_rng(seed).random((37, 53)) < 0.3
    packed: Any = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
    text = {"size": [37, 53], "counts": packed["counts"].decode()}
    np.testing.assert_array_equal(rasterise(text, 37, 53), pixels)


def test_packed_runs_that_end_early_or_are_damaged_are_refused():
    small: Any = coco_mask.encode(np.asfortranarray(np.ones((6, 8), np.uint8)))
    with pytest.raises(BadData, match=r"cover 48 pixels, and the image is \[60, 80\]"):
        rasterise({"size": [60, 80], "counts": small["counts"].decode()}, 60, 80)
    for text, reason in (("~~~", "damaged"), ("o", "end within a number"), ("o" * 99, "damaged")):
        with pytest.raises(BadData, match=reason):
            rasterise({"size": [60, 80], "counts": text}, 60, 80)
