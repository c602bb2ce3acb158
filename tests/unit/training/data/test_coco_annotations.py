import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.data.coco_annotations import Annotations, Painted
from training.data.file_index import FileIndex
from training.data.source import BadData

SQUARE = [[2, 2, 8, 2, 8, 8, 2, 8]]
NAMES = [{"id": 1, "name": "crack"}, {"id": 2, "name": "rust"}]
IMAGE = {"id": 9, "file_name": "a.jpg", "width": 12, "height": 10}


def read(folder: Path, **content: Any) -> Annotations:
    path = folder / "own.json"
    document = {"images": [IMAGE], "annotations": [], "categories": NAMES} | content
    path.write_text(json.dumps(document))
    return Annotations(path, FileIndex(folder))


def paint(folder: Path, *objects: dict[str, Any]) -> Painted:
    entries = [
        {"id": 40 + number, "image_id": 9, "category_id": 1, "segmentation": SQUARE} | entry
        for number, entry in enumerate(objects)
    ]
    return read(folder, annotations=entries).paint("a", 12, 10, {1: 1, 2: 2})


@pytest.mark.parametrize("listed", [9, 9.0, "9"])
@pytest.mark.parametrize("named", [9, 9.0, "9", " 9"])
def test_an_images_id_is_the_same_however_it_is_written(tmp_path: Path, listed: Any, named: Any):
    crack = {"id": 1, "image_id": named, "category_id": 1, "segmentation": SQUARE}
    annotations = read(tmp_path, images=[IMAGE | {"id": listed}], annotations=[crack])
    assert annotations.strays == []
    assert annotations.paint("a", 12, 10, {1: 1}).mask[5, 5] == 1


def test_texts_are_other_ids_than_the_numbers_they_resemble(tmp_path: Path):
    images = [IMAGE | {"id": id, "file_name": f"{id}.jpg"} for id in (9, "009", "b9", 2**70)]
    crack = {"id": 1, "image_id": "009", "category_id": 1, "segmentation": SQUARE}
    annotations = read(tmp_path, images=images, annotations=[crack, crack | {"image_id": 9.5}])
    assert annotations.strays == ["object 1 of image 9.5"]
    masks = [annotations.paint(str(id), 12, 10, {1: 1}).mask.any() for id in (9, "009", "b9")]
    assert masks == [False, True, False]


@pytest.mark.parametrize("iscrowd", [0, 1, "1", 1.0, True, None])
def test_a_crowd_is_void(tmp_path: Path, iscrowd: Any):
    mask = paint(tmp_path, {"iscrowd": iscrowd}).mask
    assert np.unique(mask).tolist() == [0, 255 if iscrowd else 1]


def test_an_object_is_no_crowd_unless_it_says_so(tmp_path: Path):
    assert paint(tmp_path, {}).mask[5, 5] == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"category_id": 91}, "its category_id is 91, and the file's categories are 1 crack, 2 r"),
        ({"category_id": None}, "its category_id is None"),
        ({"category_id": "crack"}, "its category_id is 'crack'"),
        ({"category_id": [1]}, r"its category_id is \[1\]"),
        ({"iscrowd": 7}, "its iscrowd is 7"),
        ({"segmentation": [[float("nan"), 2, 8, 2, 8, 8]]}, "is no number"),
        ({"segmentation": [[1e9, 2, 8, 2, 8, 8]]}, "far outside"),
        ({"segmentation": {"size": [10, 12], "counts": "04"}}, "cover"),
        ({"segmentation": 5}, "neither polygons nor run lengths"),
    ],
)
def test_an_object_that_is_not_what_the_format_says_is_named(
    tmp_path: Path, change: dict[str, Any], reason: str
):
    with pytest.raises(BadData, match=f"object 41 of it: .*{reason}.*correct it in own.json"):
        paint(tmp_path, {}, change)


@pytest.mark.parametrize("segmentation", [None, [], [[5, 5, 4, 4]], [[1, 2, 3, 4], [5, 6]]])
def test_an_object_without_an_outline_is_left_out_and_said(tmp_path: Path, segmentation: Any):
    painted = paint(tmp_path, {"category_id": 2}, {"segmentation": segmentation})
    assert np.unique(painted.mask).tolist() == [0, 2]
    (remark,) = painted.remarks
    assert "objects without an outline are left out" in remark.what
    assert remark.detail == "object 41 (crack)"


def test_parts_without_an_outline_and_objects_without_a_pixel_are_said(tmp_path: Path):
    outside = [[15, 5, 18, 5, 18, 8]]
    painted = paint(tmp_path, {"segmentation": [*SQUARE, [1, 1, 2, 2]]}, {"segmentation": outside})
    assert [(remark.what[:8], remark.detail) for remark in painted.remarks] == [
        ("polygons", "object 40 (crack)"),
        ("objects ", "object 41 (crack)"),
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"images": None}, "has no list 'images'"),
        ({"annotations": {}}, "has no list 'annotations'"),
        ({"annotations": [5]}, "annotation 0 is no object: 5"),
        ({"images": [{"id": 1}]}, "image 0 has no id and file_name"),
        ({"images": [IMAGE, IMAGE]}, "two images have the id 9"),
        ({"images": [IMAGE, IMAGE | {"id": 8}]}, "two images have the photo 'a'"),
        ({"categories": [5]}, "category 0 has no number and name: 5"),
        ({"categories": [{"id": "--0", "name": "a"}]}, "category 0 has no number and name"),
        (
            {"categories": [*NAMES, {"id": 7, "name": "crack, deep"}]},
            "own.json: category 7, 'crack, deep', is no class name: .* without commas and brack",
        ),
        ({"categories": [{"id": 7, "name": "rust [old]"}]}, r"category 7, 'rust \[old\]', is no"),
    ],
)
def test_a_file_that_is_none_of_cocos_is_refused_with_what_it_lacks(
    tmp_path: Path, content: dict[str, Any], reason: str
):
    with pytest.raises(BadData, match=reason):
        read(tmp_path, **content)


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[]", "5", "\ufeff["])
def test_a_file_that_is_no_such_json_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "own.json"
    path.write_text(text)
    with pytest.raises(BadData, match="does not hold COCO's annotations"):
        Annotations(path, FileIndex(tmp_path))
