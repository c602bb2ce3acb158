"""Class names are read from files as people and tools write them."""

from pathlib import Path

import pytest

from training.config import InputError
from training.data.class_names import find_classes, parse_classes, read_classes
from training.data.source import BadData

NAMES = ("crack", "rust", "traffic light")


@pytest.mark.parametrize(
    "text",
    [
        "crack\nrust\ntraffic light\n",
        "\ufeffcrack\r\nrust\r\ntraffic light",
        "# mine\nbackground\ncrack\nrust\ntraffic light\nvoid\n",
        "__ignore__\n_background_\ncrack\nrust\ntraffic light\n",
        "1 crack\n2 rust\n3 traffic light",
        "id,name\n0,background\n2,rust\n1,crack\n3,traffic light\n255,border\n",
        "crack 1\nrust 2\ntraffic light 3",
        "3: traffic light\n1: crack\n2: rust",
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncrack:128,0,0::\nrust:0,128,0::\n"
        "traffic light:128,128,0::\n",
        "background 0 0 0\ncrack 128 0 0\nrust 0 128 0\ntraffic light 128 128 0\n",
        "1, crack, 128, 0, 0\n2, rust, 0, 128, 0\n3, traffic light, 128, 128, 0\n",
        "0 0 0 background\n128,0,0 crack\n0,128,0 rust\n128,128,0 traffic light\n",
        "crack, rust, traffic light",
    ],
)
def test_names_are_read_in_the_order_of_their_numbers(tmp_path: Path, text: str):
    path = tmp_path / "names.txt"
    path.write_text(text)
    assert read_classes(path).names == NAMES
    assert parse_classes([str(path)]).names == NAMES


def test_names_that_differ_in_a_number_alone_are_names(tmp_path: Path):
    (tmp_path / "names.txt").write_text("stage 1\nstage 2\n")
    assert read_classes(tmp_path / "names.txt").names == ("stage 1", "stage 2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no class"),
        ("background\n", "names no class"),
        ("0 crack\n1 rust", "line 1 of .* gives 'crack' the number 0 where 1 comes next"),
        ("1 crack\n3 rust", "line 2 of .* gives 'rust' the number 3 where 2"),
        ("1 crack\n2 rust\nhole", "line 3 of .*'hole', has no number"),
        ("crack\nbackground\nrust", "line 2 of .*'background', which is no class"),
        ("crack\nrust\ncrack", "names the class 'crack' twice"),
        ('{"crack": 1}\n', "is no class name"),
        ("names:\n- crack\n- rust\n", "line 1 of .*'names:', is YAML: give one name per line"),
        ("- crack\n- rust\n", "line 1 of .*'- crack', is YAML"),
        ("wall\np0.JPG\n", "line 2 of .*'p0.JPG', is a photo's name: give the names of the cl"),
        ("door, gate\nwall\n", "line 1 of .*commas separate names in --groups"),
    ],
)
def test_what_is_no_name_is_told_by_its_line(tmp_path: Path, text: str, message: str):
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        read_classes(tmp_path / "names.txt")


def test_an_option_gives_names_or_a_file(tmp_path: Path):
    assert parse_classes(["crack,rust,traffic light"]).names == NAMES
    assert parse_classes(["crack,", "rust,", "traffic", "light"]).names == NAMES
    assert parse_classes(["crack", "rust"]).names == ("crack", "rust")
    assert parse_classes(["crack"]).names == ("crack",)
    assert parse_classes(["VOC"], ("cat",)).names == ("cat",)
    with pytest.raises(BadData, match=r"list of classes .*lost\.txt does not exist"):
        parse_classes([str(tmp_path / "lost.txt")])


def test_a_file_in_the_folder_is_found_and_two_are_asked_back(tmp_path: Path):
    assert find_classes(tmp_path) is None
    (tmp_path / "labels.txt").write_text("crack")
    assert find_classes(tmp_path, tmp_path) == tmp_path / "labels.txt"
    (tmp_path / "classes.txt").write_text("rust")
    with pytest.raises(BadData, match="may both name the classes: say which"):
        find_classes(tmp_path)


def test_an_encoding_that_is_guessed_is_told_with_the_names(tmp_path: Path):
    path = tmp_path / "names.txt"
    path.write_bytes("\u0442\u0440\u0435\u0449\u0438\u043d\u0430\n".encode("cp1251"))
    (said,) = read_classes(path).remarks
    assert "is not UTF-8 and is read as Windows-1252, in which the classes are \u00f2\u00f0" in said
    path.write_text("na\u00efve\n", encoding="utf-8")
    assert read_classes(path).remarks == []


def test_an_order_that_numbers_change_is_told(tmp_path: Path):
    path = tmp_path / "names.txt"
    path.write_text("row 2\ncolumn 1\n")
    names, (said,) = parse_classes([str(path)])
    assert names == ("column", "row")
    assert said.endswith("in the order of the numbers beside them: column, row")
    path.write_text("column 1\nrow 2\n")
    assert read_classes(path) == (names, [])
