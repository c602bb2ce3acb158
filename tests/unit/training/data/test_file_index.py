"""Photos and masks are found by name, whichever ending they have."""

import os
from pathlib import Path

import pytest

from training.data.file_index import (
    MASK_ENDINGS,
    FileIndex,
    is_litter,
    litter_remark,
    without_ending,
)
from training.data.source import BadData


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    "name", ["a.jpg", "a.jpeg", "a.JPG", "a.png", "a.webp", "a.bmp", "a.tif", "a.TIFF"]
)
def test_a_photo_is_found_by_any_ending(tmp_path: Path, name: str):
    index = FileIndex(fill(tmp_path, name))
    assert list(index.names) == ["a"]
    assert index.path("a") == tmp_path / name


def test_litter_is_passed_over_and_counted(tmp_path: Path):
    litter = ("._a.png", ".DS_Store", "Thumbs.db", "sub/desktop.ini", "__MACOSX/a.png", ".x/a.png")
    index = FileIndex(fill(tmp_path, "a.png", "sub/b.png", *litter))
    assert list(index.names) == ["a", "sub/b"]
    assert litter_remark([index]) == [
        "4 hidden or system files were passed over (such as ._*, .DS_Store, Thumbs.db)"
    ]
    assert litter_remark([FileIndex(tmp_path / "sub")])[0].startswith("1 hidden or system file was")
    assert litter_remark([FileIndex(tmp_path / "nothing")]) == []
    assert not is_litter("a.png")


def test_names_of_a_list_lead_to_ids(tmp_path: Path):
    index = FileIndex(fill(tmp_path, "a.jpg", "sub/b.jpg", "sub/c.jpg", "other/c.jpg"))
    for name in ("a", "a.jpg", "./a.png", "/JPEGImages/a.jpg", "C:\\photos\\a.jpg"):
        assert index.find(name) == ["a"]
    assert index.find("b.jpg") == index.find("JPEGImages/sub/b.jpg") == ["sub/b"]
    assert index.find("c") == ["other/c", "sub/c"]
    assert index.find("sub/c") == ["sub/c"]
    assert index.find("A.JPG") == ["a"]
    assert index.find("d") == index.find("/") == index.find("?") == []


def test_addresses_of_the_web_lead_to_ids(tmp_path: Path):
    index = FileIndex(fill(tmp_path, "my photo.jpg", "100%25.jpg"))
    for name in ("my%20photo.jpg", "https://host/p/my%20photo.jpg?size=2#x", "my photo?x=/y"):
        assert index.find(name) == ["my photo"]
    assert index.find("100%25.jpg") == ["100%25"]
    assert index.find("my photo#2") == []


def test_several_files_of_one_name_are_asked_back_but_a_png_is_the_mask(tmp_path: Path):
    fill(tmp_path, "a.jpg", "a.png", "b.JPG")
    index = FileIndex(tmp_path)
    index.check("b", "photo")
    with pytest.raises(BadData, match=r"2 photos stand for 'a': a\.jpg and a\.png in .*take all"):
        index.check("a", "photo")
    masks = FileIndex(tmp_path, MASK_ENDINGS, preferred=".png")
    masks.check("a", "mask")
    assert masks.path("a") == tmp_path / "a.png"
    assert masks.path("missing") == tmp_path / "missing.png"


def test_accents_are_one_letter_however_they_are_written(tmp_path: Path):
    index = FileIndex(fill(tmp_path, "e\u0301te.jpg"))  # as a Mac writes it
    assert index.find("été.jpg".replace("été", "\u00e9te")) == ["\u00e9te"]
    assert index.path("\u00e9te").exists()


def test_photos_that_are_not_read_are_counted(tmp_path: Path):
    assert FileIndex(fill(tmp_path, "a.HEIC", "b.heic", "c.txt")).foreign == {".heic": 2}
    assert without_ending("a.jpg.png") == "a"
    assert without_ending("a.b") == "a.b"


def test_folders_behind_links_are_read_once(tmp_path: Path):
    fill(tmp_path / "elsewhere", "a.jpg")
    photos = fill(tmp_path / "photos", "b.jpg")
    (photos / "train").symlink_to(tmp_path / "elsewhere")
    (photos / "loop").symlink_to(photos)
    assert list(FileIndex(photos).names) == ["b", "train/a"]


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path):
    fill(tmp_path, "photos")
    with pytest.raises(BadData, match=r"the folder .*photos cannot be read \(Not a directory\)"):
        FileIndex(tmp_path / "photos")


def test_a_photo_whose_name_is_not_utf8_is_named_and_other_files_do_not_matter(tmp_path: Path):
    fill(tmp_path, "\u00e9.jpg", os.fsdecode(b"r\xe9sum\xe9.txt"))
    assert list(FileIndex(tmp_path).names) == ["\u00e9"]
    fill(tmp_path, os.fsdecode(b"sub/caf\xe9.jpg"))
    with pytest.raises(BadData, match=r"the file sub/caf\\xe9\.jpg in .* not UTF-8 .*: rename it"):
        FileIndex(tmp_path)
