from pathlib import Path

import pytest

from training.data.asked_masks import asked_masks, palette_names
from training.data.reading import BY_BRIGHTNESS, BY_VALUE, voc_palette
from training.data.source import BadData

CLASSES = ("crack", "rust", "class 3")


def test_nothing_is_asked_by_default_and_words_are_readings():
    assert asked_masks(None, (), CLASSES) is None
    assert palette_names(None) is palette_names("voc") is palette_names("gray") is None
    assert asked_masks("indices", (), CLASSES) == BY_VALUE
    assert asked_masks("gray", (), CLASSES) == BY_BRIGHTNESS
    assert asked_masks("voc", (), CLASSES) == voc_palette(3)
    assert (128, 128, 0, 3) in voc_palette(3).colours
    assert (224, 224, 192, 255) in voc_palette(3).colours


@pytest.mark.parametrize(
    "text",
    [
        "background 0 0 0\ncrack 255 0 0\nrust 0,255,0\nclass 3 0 0 255\nvoid 9 9 9\n",
        "name,r,g,b\nbackground,0,0,0\ncrack,255,0,0\nrust,0,255,0\nclass 3,0,0,255\nvoid,9,9,9\n",
        "0,0,0,background\n255,0,0,crack\n0,255,0,rust\n0,0,255,class 3\n9,9,9,ignore\n",
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncrack:255,0,0::\n"
        "rust:0,255,0::\nclass 3:0,0,255::\nvoid:9,9,9::\n",
    ],
)
def test_a_palette_names_colours_as_people_write_them(tmp_path: Path, text: str):
    path = tmp_path / "palette.txt"
    path.write_text(text)
    reading = asked_masks(str(path), (), CLASSES)
    assert palette_names(str(path)) == CLASSES
    assert reading
    assert sorted(reading.colours) == [
        (0, 0, 0, 0), (0, 0, 255, 3), (0, 255, 0, 2), (9, 9, 9, 255), (255, 0, 0, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("crack", "line 1 of the palette .* has no name and colour"),
        ("crack 300 0 0", "has no name and colour"),
        ("1 2 3", "has no name and colour"),
        ("crak 1 2 3", "no class 'crak': did you mean 'crack'?"),
        ("crack 1 2 3\nrust 1 2 3", "the palette .* gives the colour .* twice"),
        ("crack 1 2 3", "has no colour for rust, class 3: add it"),
    ],
)
def test_a_palette_that_cannot_be_used_is_refused(tmp_path: Path, text: str, reason: str):
    path = tmp_path / "palette.txt"
    path.write_text(text)
    with pytest.raises(BadData, match=reason):
        asked_masks(str(path), (), CLASSES)


def test_a_palette_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(BadData, match=r"the palette .*nothing.txt does not exist"):
        asked_masks(str(tmp_path / "nothing.txt"), (), CLASSES)


def test_numbers_stand_for_classes_background_and_void():
    reading = asked_masks(None, ("255=crack", "128=rust", "7=background", "9=void"), CLASSES)
    assert reading
    assert reading.values == ((7, 0), (9, 255), (128, 2), (255, 1))


@pytest.mark.parametrize(
    ("palette", "values", "reason"),
    [
        (None, ("255",), "give a number of the masks and what it stands for, as 255=crack"),
        (None, ("x=crack",), "give a number"),
        (None, ("70000=crack",), "give a number"),
        (None, ("1=crack", "1=rust"), "the number 1 is given twice"),
        (None, ("1=moss",), "there is no class 'moss'"),
        ("voc", ("1=crack",), "either --palette or --values"),
    ],
)
def test_options_that_cannot_be_used_are_refused(
    palette: str | None, values: tuple[str, ...], reason: str
):
    with pytest.raises(BadData, match=reason):
        asked_masks(palette, values, CLASSES)
