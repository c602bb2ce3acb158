import numpy as np
import pytest
from PIL import Image

from tests.support.images import encoded, png_of_size, with_orientation
from training.data.headers import mask_header, photo_header
from training.data.source import BadData

PHOTO = np.zeros((20, 30, 3), np.uint8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(("orientation", "upright"), [(1, (30, 20)), (3, (30, 20)), (6, (20, 30))])
def test_a_photos_header_has_its_size_and_how_exif_turns_it(
    kind: str, orientation: int, upright: tuple[int, int]
):
    header = photo_header(with_orientation(PHOTO, kind, orientation))
    assert header == (30, 20, orientation)
    assert header.upright_size == upright


@pytest.mark.parametrize("orientation", [0, 9, 300])
def test_an_orientation_that_there_is_not_turns_nothing(orientation: int):
    assert photo_header(with_orientation(PHOTO, "JPEG", orientation)).orientation == 1


def test_a_damaged_exif_turns_nothing():
    data = encoded(PHOTO, "JPEG", exif=b"Exif\0\0XX\0\0nonsense")
    assert photo_header(data) == (30, 20, 1)


def test_a_tiff_is_decoded_upright_and_has_nothing_to_turn():
    assert photo_header(with_orientation(PHOTO, "TIFF", 6)).orientation == 1


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "the file is empty"),
        (b"not a picture", "the file is none that is known here"),
        (b"\0\0\0\x18ftypheic....", "the file is a HEIC"),
        (b"%PDF-1.7", "the file is a PDF"),
        (b"<!DOCTYPE html>", "the file is a web page"),
        (b"\xff\xd8\xff\xe0", "the image cannot be decoded"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "none that is known"),
    ],
)
def test_what_is_no_photo_is_named_and_opened_by_no_other_program(data: bytes, found: str):
    with pytest.raises(BadData, match=found):
        photo_header(data)


def test_a_size_beyond_the_limit_is_told_with_how_to_raise_it_before_a_pixel_is_decoded():
    data = png_of_size(80_000_000, 80_000_000)
    with pytest.raises(BadData, match=r"80000000 x 80000000 = .* at most 178,956,970 .*--max-pix"):
        photo_header(data)
    assert photo_header(png_of_size(14_000, 13_000), 182_000_000)[:2] == (14_000, 13_000)


def test_a_masks_header_has_its_bits_and_kind():
    assert mask_header(encoded(Image.new("P", (3, 2))))[:2] == (3, 2)
    assert mask_header(encoded(Image.new("RGBA", (3, 2)))) == (3, 2, 8, 6)
    with pytest.raises(BadData, match="the file is a JPEG; save it as a PNG"):
        mask_header(encoded(Image.new("L", (3, 2)), "JPEG"))
