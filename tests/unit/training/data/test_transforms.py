import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from training.config import Augmentation, EvaluationConfig
from training.data.source import BadData
from training.data.transforms import (
    crop_box,
    decode_image,
    decode_mask,
    evaluation_view,
    random_resized_crop,
)

sides = st.integers(3, 90)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def coordinates(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image and a mask that show the same smooth ramps."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows * 250 // height, columns * 250 // width, rows * 0], -1).astype(np.uint8)
    return image, image[..., 1].copy()


def test_exif_rotation_is_ignored_as_it_is_in_the_mask():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    data = encoded(Image.new("RGB", (20, 10), (200, 30, 40)), "JPEG", exif=exif)
    assert decode_image(data).shape == (10, 20, 3)


def test_images_are_rgb_whatever_the_file_holds():
    assert decode_image(encoded(Image.new("RGB", (8, 8), (250, 10, 20)), "PNG"))[0, 0].tolist() == [
        250,
        10,
        20,
    ]
    for mode in ("L", "CMYK"):
        assert decode_image(encoded(Image.new(mode, (8, 6)), "JPEG")).shape == (6, 8, 3)


def test_palette_indices_are_the_classes():
    picture = Image.fromarray(np.array([[0, 3], [255, 1]], np.uint8)).convert("P")
    picture.putpalette([200] * 768)
    assert decode_mask(encoded(picture, "PNG")).tolist() == [[0, 3], [255, 1]]


@pytest.mark.parametrize(
    ("mode", "kind"), [("RGB", "PNG"), ("1", "PNG"), ("I;16", "PNG"), ("L", "JPEG")]
)
def test_masks_of_other_kinds_are_refused(mode: str, kind: str):
    with pytest.raises(BadData, match="PNG with a palette or 8-bit gray"):
        decode_mask(encoded(Image.new(mode, (4, 4)), kind))


@given(cut=st.integers(0, 500))
def test_a_truncated_file_is_bad_data_and_nothing_else(cut: int):
    noise = np.random.default_rng(0).integers(0, 9, (30, 30), dtype=np.uint8)
    mask = encoded(Image.fromarray(noise), "PNG")
    with pytest.raises(BadData):
        decode_mask(mask[: min(cut, len(mask) - 30)])
    with pytest.raises(BadData):
        decode_image(encoded(Image.fromarray(noise), "JPEG")[: cut // 4])


@given(
    height=sides,
    width=sides,
    seed=st.integers(0, 2**32),
    low=st.floats(0.1, 1),
    more=st.floats(0, 2),
)
def test_a_crop_lies_in_the_image(height: int, width: int, seed: int, low: float, more: float):
    augmentation = Augmentation(scale=(low, low + more))
    top, left, box_height, box_width = crop_box(
        height, width, augmentation, np.random.default_rng(seed)
    )
    assert 0 <= top <= top + box_height <= height
    assert 0 <= left <= left + box_width <= width
    assert box_height > 0
    assert box_width > 0


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 375), (480, 640)])
def test_crops_are_distributed_as_the_papers_code_draws_them(height: int, width: int):
    """14.5 % of the draws reject ten boxes and take the whole image.

    The others cover half of it or more, 0.66 on average.
    """
    rng = np.random.default_rng(0)
    boxes = [crop_box(height, width, Augmentation(scale=(0.5, 2.0)), rng) for _ in range(6000)]
    areas = np.array([box[2] * box[3] for box in boxes]) / (height * width)
    whole = np.array([box[2:] == (height, width) for box in boxes])
    assert whole.mean() == pytest.approx(0.145, abs=0.02)
    assert areas[~whole].min() > 0.49
    assert areas[~whole].mean() == pytest.approx(0.66, abs=0.01)


def test_after_ten_rejections_the_largest_centred_box_of_an_allowed_ratio_is_taken():
    too_large = Augmentation(scale=(5.0, 6.0), ratio=(3 / 4, 4 / 3))
    rng = np.random.default_rng(0)
    assert crop_box(30, 100, too_large, rng) == (0, 30, 30, 40)
    assert crop_box(100, 30, too_large, rng) == (30, 0, 40, 30)
    assert crop_box(50, 60, too_large, rng) == (0, 0, 50, 60)


@pytest.mark.parametrize("crop", [16, 128])
@pytest.mark.parametrize("seed", range(8))
def test_image_and_mask_show_the_same_place(crop: int, seed: int):
    """Columns of the mask agree with the image's, shrunk or enlarged, flipped or not."""
    image, mask = random_resized_crop(
        *coordinates(60, 80), Augmentation(crop=crop), np.random.default_rng(seed)
    )
    assert mask is not None
    assert image.shape == (crop, crop, 3)
    difference = image[..., 1].astype(int) - mask
    assert abs(difference).max() <= 250 / 60  # at most about a pixel
    assert abs(difference.mean()) < 0.6  # and to neither side


def test_crops_without_a_mask_are_those_with_one():
    image, mask = coordinates(40, 50)
    with_mask, _ = random_resized_crop(image, mask, Augmentation(crop=32), np.random.default_rng(5))
    without, none = random_resized_crop(
        image, None, Augmentation(crop=32), np.random.default_rng(5)
    )
    assert none is None
    np.testing.assert_array_equal(with_mask, without)


def test_half_of_the_crops_are_flipped_and_none_when_flipping_is_off():
    image, _ = coordinates(40, 40)

    def flipped(seed: int, flip: bool) -> bool:
        crop, _ = random_resized_crop(
            image, None, Augmentation(crop=20, flip=flip), np.random.default_rng(seed)
        )
        return bool(crop[0, 0, 1] > crop[0, -1, 1])

    assert 60 < sum(flipped(seed, True) for seed in range(200)) < 140
    assert not any(flipped(seed, False) for seed in range(50))


@given(height=sides, width=sides, short=st.integers(8, 64))
@settings(max_examples=40)
def test_evaluation_crops_the_centre_of_the_resized_image(height: int, width: int, short: int):
    image, mask = evaluation_view(
        *coordinates(height, width), EvaluationConfig(short_side=short, crop=short)
    )
    assert mask is not None
    assert image.shape == (short, short, 3)
    assert mask.shape == (short, short)


def test_evaluation_at_the_original_resolution_changes_no_pixel():
    image, mask = coordinates(31, 57)
    seen, truth = evaluation_view(image, mask, EvaluationConfig(short_side=None, crop=None))
    np.testing.assert_array_equal(seen, image)
    np.testing.assert_array_equal(truth, mask)


def test_evaluation_never_pads():
    image, mask = evaluation_view(*coordinates(20, 50), EvaluationConfig(short_side=None, crop=30))
    assert mask is not None
    assert image.shape == (20, 30, 3)
    np.testing.assert_array_equal(mask, coordinates(20, 50)[1][:, 10:40])


def test_resized_masks_hold_no_new_values():
    mask = np.zeros((50, 70), np.uint8)
    mask[10:30, 20:50] = 7
    _, resized = evaluation_view(
        np.zeros((50, 70, 3), np.uint8), mask, EvaluationConfig(short_side=33, crop=None)
    )
    assert resized is not None
    assert set(np.unique(resized)) == {0, 7}
