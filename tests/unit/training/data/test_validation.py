import numpy as np
import pytest
from PIL import Image

from tests.support.images import encoded, gray_png, png_of_size, with_orientation
from training.data.digits import Digits
from training.data.reading import Asked
from training.data.source import BadData, LeftOut, Sample
from training.data.validation import BadRow, BadRows, examine, inspect

PHOTO = np.zeros((20, 30, 3), np.uint8)
MASK = encoded(np.ones((20, 30), np.uint8))
TURNED_MASK = encoded(np.ones((30, 20), np.uint8))


def sample(image: bytes, mask: bytes = MASK) -> Sample:
    return Sample("a", image, mask)


@pytest.mark.parametrize(
    ("orientation", "mask", "fits", "size"),
    [
        (1, MASK, "stored", (30, 20)),
        (6, TURNED_MASK, "upright", (20, 30)),
        (8, MASK, "stored", (30, 20)),
        (3, MASK, "both", (30, 20)),
        (2, MASK, "both", (30, 20)),
    ],
)
def test_the_sizes_say_whether_a_mask_is_of_the_upright_photo(
    orientation: int, mask: bytes, fits: str, size: tuple[int, int]
):
    row = inspect(sample(with_orientation(PHOTO, "JPEG", orientation), mask), 3)
    assert (row.seen.exif, row.seen.fits) == (orientation, fits)
    assert (row.width, row.height) == size


def test_a_square_photo_fits_both_ways():
    photo, mask = np.zeros((9, 9, 3), np.uint8), encoded(np.ones((9, 9), np.uint8))
    assert inspect(sample(with_orientation(photo, "JPEG", 6), mask), 3).seen.fits == "both"


def test_a_size_that_fits_in_no_way_is_refused_with_a_word_of_exif():
    small = encoded(np.ones((5, 6), np.uint8))
    with pytest.raises(BadData, match=r"6 x 5 pixels and the image 30 x 20 \(20 x 30 turned up.*6"):
        inspect(sample(with_orientation(PHOTO, "JPEG", 6), small), 3)


def test_a_mask_with_the_photos_exif_is_stored_as_the_photo_is_and_with_another_is_refused():
    photo = with_orientation(PHOTO, "JPEG", 6)
    alike = with_orientation(np.ones((20, 30), np.uint8), "PNG", 6)
    assert inspect(sample(photo, alike), 3).seen.exif == 1
    other = with_orientation(np.ones((20, 30), np.uint8), "PNG", 3)
    with pytest.raises(BadData, match="the mask has EXIF orientation 3 and the image 6"):
        inspect(sample(photo, other), 3)


def test_photo_and_mask_have_one_limit_and_are_refused_by_their_headers():
    large, asked = png_of_size(20_000, 20_000), Asked(max_pixels=1000)
    for image, mask, what in ((large, MASK, "image"), (encoded(PHOTO), large, "mask")):
        with pytest.raises(BadData, match=f"the {what} is 20000 x 20000 .*--max-pixels"):
            inspect(sample(image, mask), 3)
    with pytest.raises(BadData, match="the limit with --max-pixels"):
        inspect(sample(encoded(np.zeros((40, 50, 3), np.uint8)), MASK), 3, asked)
    assert inspect(sample(encoded(PHOTO)), 3, asked).width == 30


class Raising(Digits):
    def __init__(self, error: BaseException) -> None:
        super().__init__(train=1, val=1)
        self.error = error

    def read(self, split: str, id: str) -> Sample:
        raise self.error


@pytest.mark.parametrize("error", [MemoryError(), OverflowError("too large"), KeyError("width")])
def test_whatever_an_image_raises_is_a_row_that_names_the_error(error: Exception):
    row = examine(Raising(error), "train", "x", Asked())
    assert isinstance(row, BadRow)
    assert type(error).__name__ in row.reason
    assert (row.split, row.id) == ("train", "x")


def test_a_disk_that_does_not_answer_is_no_fault_of_the_image():
    with pytest.raises(OSError, match="no answer"):
        examine(Raising(OSError("no answer")), "train", "x", Asked())
    assert examine(Raising(LeftOut()), "train", "x", Asked()) is None


def test_images_of_one_reason_are_told_once():
    rows = [BadRow(split="train", id=str(n), reason="no colours") for n in range(4)]
    rows += [BadRow(split="val", id="z", reason="truncated")]
    message = str(BadRows(rows))
    assert message.startswith("5 images cannot be used (train/0 and 3 more: no colours | val/z: tr")


def test_a_mask_of_one_bit_is_class_one():
    row = inspect(sample(encoded(Image.new("1", (4, 4))), gray_png(np.eye(4, dtype=int), 1)), 1)
    assert row.pixels[:2].tolist() == [12, 4]
    assert row.seen.mask == "gray 1"


def test_a_photo_of_16_bits_that_is_nearly_black_is_told():
    (remark,) = inspect(sample(gray_png(np.full((20, 30), 1023), 16)), 3).sample.remarks
    assert "read nearly black: save them as 8 bits" in remark.what
    assert inspect(sample(gray_png(np.full((20, 30), 60_000), 16)), 3).sample.remarks == ()


def test_many_values_without_a_class_are_shades_and_a_few_are_named():
    with pytest.raises(BadData, match=r"smoothed, resized .*\(declared are 0 to 3, and 255 for v"):
        inspect(sample(encoded(PHOTO), gray_png(np.arange(600).reshape(20, 30) // 3, 8)), 3)
    with pytest.raises(BadData, match=r"the value 4; declared are 0 to 3, .*--values 4=NAME"):
        inspect(sample(encoded(PHOTO), gray_png(np.arange(600).reshape(20, 30) % 9, 8)), 3)
