"""Photos of any format are decoded as viewers show them."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from training.data import photo as photo_module
from training.data.photo import decode_photo, remark_darkness
from training.data.source import BadData
from training.data.transforms import decode_image

ORIENTATION = 0x0112
PIXELS = cv2.resize(np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8), (70, 50))
PHOTO = Image.fromarray(PIXELS)


def encode(picture: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_photo_is_turned_as_its_exif_asks(orientation: int, kind: str):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encode(PHOTO, kind, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(decode_photo(data), np.array(upright.convert("RGB")))


def test_a_photo_of_a_dataset_has_the_pixels_that_training_sees():
    data = encode(PHOTO, "JPEG", quality=80)
    np.testing.assert_array_equal(decode_photo(data), decode_image(data))


@pytest.mark.parametrize("kind", ["BMP", "PPM", "JPEG2000"])
def test_exact_formats_are_exact(kind: str):
    np.testing.assert_array_equal(decode_photo(encode(PHOTO, kind)), PIXELS)


@pytest.mark.parametrize(
    ("data", "tolerance"),
    [
        (encode(PHOTO.convert("CMYK"), "JPEG", quality=95), 3),
        (encode(PHOTO.convert("CMYK"), "TIFF"), 0),
        (encode(PHOTO, "AVIF", quality=95), 3),
        (encode(PHOTO, "GIF"), 12),
        (encode(PHOTO.convert("RGBA"), "PNG"), 0),
        (encode(PHOTO, "MPO", save_all=True, append_images=[PHOTO], quality=95), 3),
        (cv2.imencode(".png", PIXELS[..., ::-1].astype(np.uint16) * 257)[1].tobytes(), 0),
        (cv2.imencode(".tif", PIXELS[..., ::-1].astype(np.uint16) * 257)[1].tobytes(), 0),
    ],
    ids=["cmyk", "cmyk tiff", "avif", "gif", "alpha", "mpo", "16 bit png", "16 bit tiff"],
)
def test_other_formats_have_the_colours_of_the_photo(data: bytes, tolerance: float):
    found = decode_photo(data).astype(int)
    assert found.shape == PIXELS.shape
    assert np.abs(found - PIXELS).mean() <= tolerance


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P"])
def test_grey_and_palettes_become_colours(mode: str):
    picture = PHOTO.convert(mode)
    expected = np.array(picture.convert("RGB"))
    np.testing.assert_array_equal(decode_photo(encode(picture, "PNG")), expected)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"<html></html>", "web page"),
        (encode(PHOTO, "JPEG")[:-400], "truncated"),
        (encode(PHOTO, "PNG")[:-400], "truncated"),
        (encode(PHOTO, "GIF")[:30], "cannot be decoded"),
        (b"\0\0\0 ftypheic" + bytes(40), "HEIC"),
        (encode(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "floating-point"),
    ],
    ids=["empty", "web page", "cut jpeg", "cut png", "cut gif", "heic", "float"],
)
def test_what_is_no_photo_is_refused_with_the_reason(data: bytes, words: str):
    with pytest.raises(BadData, match=words):
        decode_photo(data)


def test_a_photo_that_is_too_large_is_not_decoded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(photo_module, "MOST_PIXELS", 100)
    with pytest.raises(BadData, match=r"70 x 50 = 3,500 pixels"):
        decode_photo(encode(PHOTO, "GIF"))


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_photos_of_12_bits_in_16_are_told_and_others_are_not(ending: str, channels: int):
    values = np.linspace(0, 4095, 60).astype(np.uint16).reshape(4, 15)
    values = np.repeat(values[..., None], channels, axis=2)
    for factor, said in ((1, True), (4, True), (16, False)):
        data = cv2.imencode(ending, values * factor)[1].tobytes()
        remark = remark_darkness(data, decode_photo(data))
        assert (remark is not None and "of 255" in remark.detail) == said
    dark = encode(Image.new("RGB", (4, 4)), "PNG")
    assert remark_darkness(dark, decode_photo(dark)) is None
    assert remark_darkness(encode(PHOTO, "JPEG"), PIXELS) is None
    assert remark_darkness(encode(PHOTO.convert("1"), "TIFF"), PIXELS * 0) is None
