import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from tests.support.datasets import build_dataset
from tests.support.paths import SHARED
from training.data.coco import COCO_CATEGORIES, Coco
from training.data.source import BadData
from training.data.transforms import decode_mask

SAMPLE = SHARED / "data" / "coco_sample"
SQUARE = [[2, 2, 8, 2, 8, 8, 2, 8]]  # x, y of its corners
FIRST = "000000000009"
CROWD = {"size": [10, 12], "counts": [0, 60, 60]}  # the left half, column by column


def write_coco(
    root: Path,
    objects: list[dict[str, Any]],
    split: str = "train2017",
    names: Mapping[int, str] = COCO_CATEGORIES,
    size: Mapping[str, object] = MappingProxyType({"height": 10, "width": 12}),
) -> Path:
    """Write one image of 12 x 10 with these objects, and one without any."""
    (root / split).mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    images = []
    for number in (9, 25):
        Image.new("RGB", (12, 10)).save(root / split / f"{number:012d}.jpg")
        images.append({"id": number, "file_name": f"{number:012d}.jpg", **size})
    annotations = [{"id": n, "image_id": 9, **entry} for n, entry in enumerate(objects)]
    categories = [{"id": id, "name": name} for id, name in names.items()]
    content = {"images": images[::-1], "annotations": annotations, "categories": categories}
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def test_there_are_the_80_classes_of_coco():
    assert len(COCO_CATEGORIES) == 80
    assert max(COCO_CATEGORIES) == 90
    assert list(COCO_CATEGORIES) == sorted(COCO_CATEGORIES)


def test_category_ids_become_class_ids_without_gaps(tmp_path: Path):
    source = Coco(write_coco(tmp_path, [{"category_id": 90, "segmentation": SQUARE}]), "instances")
    assert source.splits == ("train",)
    assert source.ids("train") == ["000000000009", "000000000025"]
    mask = decode_mask(source.read("train", "000000000009").mask)
    assert np.unique(mask).tolist() == [0, 80]
    assert source.classes[79] == "toothbrush"
    assert not decode_mask(source.read("train", "000000000025").mask).any()


def test_the_later_object_lies_on_top_and_a_crowd_below_all(tmp_path: Path):
    objects = [
        {"category_id": 1, "segmentation": SQUARE},
        {"category_id": 7, "iscrowd": 1, "segmentation": CROWD},
        {"category_id": 3, "segmentation": [[5, 0, 12, 0, 12, 10, 5, 10]]},
    ]
    mask = decode_mask(Coco(write_coco(tmp_path, objects), "instances").read("train", FIRST).mask)
    assert mask[5, 3] == 1  # not the crowd, though it is listed later
    assert mask[5, 7] == 3  # not the square, which is listed earlier
    assert mask[0, 0] == 255
    assert mask[9, 4] == 255


def test_maps_of_coco_stuff_hold_category_ids_less_one_and_stuff_is_background(tmp_path: Path):
    folder = tmp_path / "stuffthingmaps" / "val2017"
    folder.mkdir(parents=True)
    (tmp_path / "val2017").mkdir()
    # The values are person, toothbrush, no category, three kinds of stuff, and void.
    values = np.array([[0, 89, 11, 91, 181, 254, 255]], np.uint8)
    Image.fromarray(values).save(folder / "000000000001.png")
    Image.new("RGB", (7, 1)).save(tmp_path / "val2017" / "000000000001.jpg")
    source = Coco(tmp_path, "stuffthingmaps")
    assert decode_mask(source.read("val", source.ids("val")[0]).mask).tolist() == [
        [1, 80, 0, 0, 0, 0, 255]
    ]


def test_what_is_missing_or_broken_is_told(tmp_path: Path):
    with pytest.raises(BadData, match="neither a folder train2017 nor val2017"):
        Coco(tmp_path, "instances")
    write_coco(tmp_path, [])
    with pytest.raises(BadData, match=r"stuffthingmaps.train2017 are missing.*--masks"):
        Coco(tmp_path, "stuffthingmaps")
    (tmp_path / "annotations" / "instances_train2017.json").write_text('{"images": [')
    with pytest.raises(BadData, match="does not hold COCO's annotations"):
        Coco(tmp_path, "instances")


def masks_of(root: Path) -> np.ndarray:
    """Return the class ids of the image with objects."""
    return decode_mask(Coco(root, "instances").read("train", FIRST).mask)


@pytest.mark.parametrize("id", [0, 1, 12, 91, 255, 300, -1, "7"])
def test_the_files_own_categories_are_the_classes_whatever_their_ids(tmp_path: Path, id: Any):
    names = {id: "crack", 1000: "rust"}
    write_coco(tmp_path, [{"category_id": id, "segmentation": SQUARE}], names=names)
    source = Coco(tmp_path, "instances")
    assert source.classes == ("crack", "rust")
    assert np.unique(masks_of(tmp_path)).tolist() == [0, 1]


def test_a_category_that_is_called_background_is_background(tmp_path: Path):
    names = {0: "background", 1: "crack"}
    objects = [{"category_id": n, "segmentation": SQUARE} for n in (1, 0)]
    assert Coco(write_coco(tmp_path, objects, names=names), "instances").classes == ("crack",)
    assert not masks_of(tmp_path).any()


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ({}, "names no categories"),
        ({1: "crack", 2: "crack"}, "two categories have the id 2 or the name 'crack'"),
        ({1: ""}, "category 0 has no number and name"),
        ({n: str(n) for n in range(300)}, "300 categories; masks have 8 bits.*254"),
        ({0: "background"}, "no category besides background"),
    ],
)
def test_categories_that_cannot_be_classes_are_refused(
    tmp_path: Path, names: dict[int, str], reason: str
):
    with pytest.raises(BadData, match=reason):
        Coco(write_coco(tmp_path, [], names=names), "instances")


def test_the_splits_have_the_same_categories(tmp_path: Path):
    write_coco(tmp_path, [], names={1: "crack"})
    write_coco(tmp_path, [], "val2017", names={1: "rust"})
    with pytest.raises(BadData, match=r"different categories, such as \(1, 'crack'\)"):
        Coco(tmp_path, "instances")


@pytest.mark.parametrize(
    "size",
    [
        {},
        {"width": -1, "height": -1},
        {"width": None, "height": 10},
        {"width": "12", "height": "10"},
        {"width": 12.0, "height": 10.0},
    ],
)
def test_a_size_that_the_file_does_not_say_is_the_photos(tmp_path: Path, size: dict[str, Any]):
    write_coco(tmp_path, [{"category_id": 1, "segmentation": SQUARE}], size=size)
    assert masks_of(tmp_path).shape == (10, 12)


def test_a_size_that_the_photo_has_not_is_named_before_anything_is_drawn(tmp_path: Path):
    size = {"width": 10**9, "height": 10**9}
    write_coco(tmp_path, [{"category_id": 1, "segmentation": SQUARE}], size=size)
    with pytest.raises(BadData, match=r"1000000000 pixels, and the photo is 12 x 10"):
        masks_of(tmp_path)


def test_photos_are_found_by_any_name_that_the_file_gives_them(tmp_path: Path):
    write_coco(tmp_path, [{"category_id": 1, "segmentation": SQUARE}])
    path = tmp_path / "annotations" / "instances_train2017.json"
    Image.new("RGB", (12, 10)).save(tmp_path / "train2017" / "Riss 1.PNG")
    for name in ("Riss 1.png", "train2017/Riss 1.jpg", "C:\\\\data\\\\Riss 1.PNG"):
        path.write_text(path.read_text().replace("000000000009.jpg", name))
        assert "Riss 1" in Coco(tmp_path, "instances").ids("train")
        path.write_text(path.read_text().replace(name, "000000000009.jpg"))


def test_two_photos_of_one_name_are_refused_and_neither_is_taken(tmp_path: Path):
    source = Coco(write_coco(tmp_path, []), "instances")
    source.read("train", FIRST)
    Image.new("RGB", (12, 10)).save(tmp_path / "train2017" / f"{FIRST}.png")
    with pytest.raises(BadData, match=f"2 photos stand for '{FIRST}'"):
        Coco(tmp_path, "instances").read("train", FIRST)


def test_objects_of_images_that_are_not_listed_are_said(tmp_path: Path):
    write_coco(tmp_path, [{"id": 5, "image_id": 77, "category_id": 1, "segmentation": SQUARE}])
    (remark,) = Coco(tmp_path, "instances").remarks()
    assert "1 objects are of images that it does not list" in remark
    assert "object 5 of image 77" in remark


def test_photos_that_the_annotations_do_not_list_are_told(tmp_path: Path):
    write_coco(tmp_path, [])
    for name in ("extra5", "extra4"):
        Image.new("RGB", (12, 10)).save(tmp_path / "train2017" / f"{name}.jpg")
    assert Coco(tmp_path, "instances").remarks() == [
        "train2017: 2 photos are not in annotations/instances_train2017.json and are left out, "
        "such as extra4"
    ]


@pytest.mark.shared
@pytest.mark.skipif(
    not SAMPLE.exists(), reason="the optional folder of real photos (STEPCHAIN_SHARED) is absent"
)
@pytest.mark.parametrize(("split", "images"), [("train", 36), ("val", 12)])
def test_real_annotations_are_rasterised_as_cocos_own_interface_does(
    split: str, images: int, capsys: pytest.CaptureFixture
):
    """Convert as COCO's tools do: annToMask of every instance, later ones on top, no crowds."""
    source = Coco(SAMPLE, "instances")
    official = COCO(SAMPLE / "annotations" / f"instances_{split}2017.json")
    assert {
        entry["id"]: entry["name"] for entry in official.dataset["categories"]
    } == COCO_CATEGORIES
    class_ids = {category_id: number for number, category_id in enumerate(COCO_CATEGORIES, 1)}
    crowds = 0
    for id in source.ids(split):
        image = official.imgs[int(id)]
        expected = np.zeros((image["height"], image["width"]), np.uint8)
        crowd = np.zeros_like(expected, bool)
        for entry in official.loadAnns(official.getAnnIds(imgIds=image["id"])):
            pixels = official.annToMask(entry).astype(bool)
            if entry["iscrowd"]:
                crowd |= pixels
                crowds += 1
            else:
                expected[pixels] = class_ids[entry["category_id"]]
        expected[crowd & (expected == 0)] = 255
        np.testing.assert_array_equal(decode_mask(source.read(split, id).mask), expected)
    assert len(source.ids(split)) == images
    assert crowds


@pytest.mark.shared
@pytest.mark.skipif(
    not SAMPLE.exists(), reason="the optional folder of real photos (STEPCHAIN_SHARED) is absent"
)
def test_real_photos_can_all_be_used(tmp_path: Path):
    manifest, bad = build_dataset(Coco(SAMPLE, "instances"), tmp_path)
    assert bad == []
    assert [files.rows for files in manifest.splits.values()] == [36, 12]
