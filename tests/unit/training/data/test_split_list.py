"""Lists of images are read as datasets and repositories ship them."""

from pathlib import Path

import pytest

from training.data.file_index import MASK_ENDINGS, FileIndex
from training.data.source import BadData
from training.data.split_list import Listed, place_masks, read_split_list

IDS = [f"2007_00000{number}" for number in range(4)]


@pytest.fixture
def photos(tmp_path: Path) -> FileIndex:
    folder = tmp_path / "VOC" / "JPEGImages"
    folder.mkdir(parents=True)
    for id in [*IDS, "my photo"]:
        (folder / f"{id}.jpg").touch()
    return FileIndex(folder)


def read(photos: FileIndex, lines: list[str]) -> tuple[list[Listed], list[str]]:
    path = photos.folder.parent / "train.txt"
    path.write_text("\n".join(lines))
    found = read_split_list(path, photos)
    return found.images, found.remarks


@pytest.mark.parametrize(
    "pattern",
    ["{}", "{}.jpg", "JPEGImages/{}.jpg", "./{}.png", '"{}.jpg"', "{},", "{}\t", "C:\\p\\{}.jpg"],
)
def test_a_line_names_a_photo(photos: FileIndex, pattern: str):
    images, remarks = read(photos, [pattern.format(id) for id in IDS])
    assert images == [Listed(id) for id in IDS]
    assert remarks == []


@pytest.mark.parametrize(
    "pattern",
    [
        "/JPEGImages/{0}.jpg /SegmentationClassAug/{0}.png",
        "JPEGImages/{0}.jpg,/SegmentationClassAug/{0}.png,3",
        "7 {0} /SegmentationClassAug/{0}.png",
    ],
)
def test_a_column_with_a_mask_is_kept(photos: FileIndex, pattern: str):
    images, remarks = read(photos, [pattern.format(id) for id in IDS])
    assert images == [Listed(id, f"/SegmentationClassAug/{id}.png") for id in IDS]
    assert remarks == []


def test_other_columns_are_passed_over_and_said(photos: FileIndex):
    images, remarks = read(photos, ["# mine", *(f"{id} 7 14" for id in IDS)])
    assert images == [Listed(id) for id in IDS]
    assert remarks == [
        "train.txt: what stands behind the photo's name is passed over in 4 lines, "
        "such as line 2, '2007_000000 7 14'"
    ]
    images, _ = read(photos, ["image,class", f"{IDS[0]},7", "._2007_000001.jpg", "my photo.jpg"])
    assert images == [Listed(IDS[0]), Listed("my photo")]
    images, _ = read(photos, ["photo,width,height,problem", f"{IDS[0]}.jpg,64,48,", IDS[1]])
    assert images == [Listed(IDS[0]), Listed(IDS[1])]


def test_a_line_of_several_photos_is_asked_back(photos: FileIndex):
    with pytest.raises(BadData, match=r"line 2 of the list .*2007_000001 and 2007_000002: give"):
        read(photos, [IDS[0], f"{IDS[1]} {IDS[2]}"])


def test_an_unknown_photo_stays_in_the_list_and_a_foreign_list_is_named(photos: FileIndex):
    images, _ = read(photos, [IDS[0], "/JPEGImages/2008_000001.jpg 3"])
    assert images == [Listed(IDS[0]), Listed("2008_000001")]
    with pytest.raises(BadData, match=r"none of the 500 lines .*line 1 is '/J/0\.jpg /S/0\.png'"):
        read(photos, [f"/J/{n}.jpg /S/{n}.png" for n in range(500)])


def test_a_foreign_list_in_another_encoding_is_told_to_be_saved_as_utf8(photos: FileIndex):
    path = photos.folder.parent / "train.txt"
    path.write_bytes(
        "\u0441\u0442\u0435\u043d\u0430 1\n\u0441\u0442\u0435\u043d\u0430 2\n".encode("cp1251")
    )
    with pytest.raises(BadData, match=r"none of .* was read as Windows-1252: .* save it as UTF-8"):
        read_split_list(path, photos)


def test_the_mask_of_a_list_is_found_below_the_root_or_else_by_its_name(tmp_path: Path):
    for folder in ("SegmentationClass", "SegmentationClassAug"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").touch()
    masks = FileIndex(tmp_path / "SegmentationClassAug", MASK_ENDINGS)

    def place(named: str) -> Path:
        return place_masks([Listed("a", named)], [tmp_path], masks)["a"]

    assert place("/SegmentationClass/a.png") == tmp_path / "SegmentationClass" / "a.png"
    assert place("VOC2012/SegmentationClass/b.png") == tmp_path / "SegmentationClass" / "b.png"
    assert place(str(tmp_path / "SegmentationClass" / "a.png")).parent.name == "SegmentationClass"
    assert place("/home/somebody/masks/a.png") == masks.folder / "a.png"
    assert place("a.png") == masks.folder / "a.png"
