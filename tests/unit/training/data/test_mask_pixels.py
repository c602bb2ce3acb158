import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.support.images import encoded, gray_png, palette_picture, with_orientation
from training.data.mask_pixels import mask_orientation
from training.data.reading import AS_STORED, BY_BRIGHTNESS, BY_VALUE, Reading, voc_palette
from training.data.source import BadData
from training.data.transforms import decode_mask

RED, GREEN, BLACK, BORDER = (128, 0, 0), (0, 128, 0), (0, 0, 0), (224, 224, 192)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_gray_of_any_depth_is_read_as_the_numbers_in_the_file(bits: int):
    values = np.arange(2**bits if bits < 8 else 21).reshape(1, -1)
    mask = decode_mask(gray_png(values, bits), BY_VALUE)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, values)


def test_stored_masks_of_few_bits_are_read_as_they_were():
    """Datasets of before hold such masks, and their steps' weights came from these values."""
    assert decode_mask(gray_png(np.array([[0, 1, 2, 3]]), 2)).tolist() == [[0, 85, 170, 255]]
    for bits in (1, 16):
        with pytest.raises(BadData, match="save it as a PNG with a palette or 8-bit gray"):
            decode_mask(gray_png(np.zeros((2, 2), int), bits), AS_STORED)


def test_palette_indices_are_read_at_any_depth():
    picture = palette_picture(np.array([[0, 1, 3]], np.uint8), {1: RED, 3: GREEN})
    for bits in (2, 4, 8):
        assert decode_mask(encoded(picture, bits=bits), BY_VALUE).tolist() == [[0, 1, 3]]


def test_vocs_colours_are_classes_in_rgb_in_palettes_and_with_an_alpha_that_hides_nothing():
    pixels = np.array([[BLACK, RED, GREEN, BORDER]], np.uint8)
    shuffled = palette_picture(
        np.array([[9, 7, 4, 2]], np.uint8), {9: BLACK, 7: RED, 4: GREEN, 2: BORDER}
    )
    rgb = Image.fromarray(pixels)
    for data in (encoded(rgb), encoded(shuffled), encoded(rgb.convert("RGBA"))):
        assert decode_mask(data, voc_palette(20)).tolist() == [[0, 1, 2, 255]]


def test_a_colour_that_the_palette_lacks_is_named_with_its_place():
    pixels = np.zeros((4, 5, 3), np.uint8)
    pixels[2, 3] = (10, 20, 30)
    pixels[3, 4] = (10, 20, 30)
    with pytest.raises(BadData, match=r"\(10, 20, 30\) in 2 pixels, the first in row 2, column 3"):
        decode_mask(encoded(pixels), voc_palette(20))
    foreign = palette_picture(np.full((2, 2), 7, np.uint8), {7: (1, 2, 3)})
    with pytest.raises(BadData, match=r"\(1, 2, 3\) in 4 pixels"):
        decode_mask(encoded(foreign), voc_palette(20))


def test_brightness_is_the_class_where_a_program_packed_or_coloured_it():
    packed = palette_picture(np.array([[0, 1]], np.uint8), {0: (15, 15, 15), 1: (255, 255, 255)})
    assert decode_mask(encoded(packed), BY_BRIGHTNESS).tolist() == [[15, 255]]
    assert decode_mask(gray_png(np.array([[0, 3]]), 2), BY_BRIGHTNESS).tolist() == [[0, 255]]
    as_rgb = Image.fromarray(np.array([[0, 7]], np.uint8)).convert("RGB")
    assert decode_mask(encoded(as_rgb), BY_BRIGHTNESS).tolist() == [[0, 7]]


def test_numbers_are_mapped_and_zero_and_void_stay():
    reading = Reading(masks="values", values=((128, 1), (1000, 2)))
    values = np.array([[0, 128, 1000, 255]])
    assert decode_mask(gray_png(values, 16), reading).tolist() == [[0, 1, 2, 255]]
    with pytest.raises(BadData, match=r"the value 5; it stands for no class.*--values 5=NAME"):
        decode_mask(gray_png(np.array([[0, 5]]), 8), reading)
    white = Reading(masks="values", values=((255, 1),))
    assert decode_mask(gray_png(np.array([[0, 255]]), 8), white).tolist() == [[0, 1]]


def test_a_smoothed_mask_is_told_so():
    reading = Reading(masks="values", values=((255, 1),))
    shades = gray_png(np.array([[0, 9, 34, 103, 187, 247, 255]]), 8)
    with pytest.raises(BadData, match=r"many values .* smoothed, .*: save it without, or make it"):
        decode_mask(shades, reading)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encoded(Image.new("RGB", (4, 4), RED)), "RGB colours: .*--palette FILE .*voc"),
        (encoded(Image.new("RGB", (4, 4), (7, 7, 7))), "RGB colours: .*--palette gray reads"),
        (encoded(Image.new("RGBA", (4, 4), (7, 7, 7, 9))), "alpha channel"),
        (encoded(Image.new("LA", (4, 4), (7, 9))), "alpha channel"),
        (gray_png(np.full((2, 2), 300), 16), "the value 300; it stands for no class"),
        (encoded(Image.new("L", (4, 4)), "JPEG"), "the file is a JPEG"),
        (encoded(Image.new("L", (4, 4)), "BMP"), "the file is a BMP"),
    ],
)
def test_what_may_mean_anything_is_refused_with_the_option_that_decides(data: bytes, reason: str):
    with pytest.raises(BadData, match=reason):
        decode_mask(data, BY_VALUE)


def test_sixteen_bits_are_no_colours():
    with pytest.raises(BadData, match="16 bits"):
        decode_mask(gray_png(np.zeros((2, 2), int), 16), voc_palette(20))


def test_whatever_a_decoder_raises_is_bad_data_with_its_name():
    long_text = PngInfo()
    long_text.add_text("history", "x" * 2_000_000, zip=True)
    picture = Image.new("L", (4, 4))
    for data in (
        encoded(picture, pnginfo=long_text),
        encoded(picture, icc_profile=b"x" * 3_000_000),
    ):
        with pytest.raises(BadData, match=r"mask cannot be decoded: ValueError: .*save it again"):
            decode_mask(data, BY_VALUE)


def test_a_mask_may_have_an_exif_of_its_own():
    assert mask_orientation(with_orientation(Image.new("L", (3, 2)), "PNG", 6)) == 6
    assert mask_orientation(encoded(Image.new("L", (3, 2)))) == 1
