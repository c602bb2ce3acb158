import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from tests.support.datasets import build_dataset
from tests.support.paths import SHARED
from training.data.coco import COCO_CATEGORIES, Coco, paint, rasterise
from training.data.source import BadData
from training.data.transforms import decode_mask

SAMPLE = SHARED / "data" / "coco_sample"
SQUARE = [[2, 2, 8, 2, 8, 8, 2, 8]]  # x, y of its corners
CROWD = {"size": [10, 12], "counts": [0, 60, 60]}  # the left half, column by column


def write_coco(root: Path, objects: list[dict[str, Any]], split: str = "train2017") -> Path:
    """Write one image of 12 x 10 with these objects, and one without any."""
    (root / split).mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    images = []
    for number in (9, 25):
        Image.new("RGB", (12, 10)).save(root / split / f"{number:012d}.jpg")
        images.append({"id": number, "file_name": f"{number:012d}.jpg", "height": 10, "width": 12})
    annotations = [
        {"id": n, "image_id": 9, "iscrowd": 0, **entry} for n, entry in enumerate(objects)
    ]
    content = {"images": images[::-1], "annotations": annotations, "categories": []}
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


def test_the_later_object_lies_on_top_and_a_crowd_below_all():
    objects = [(1, False, SQUARE), (7, True, CROWD), (3, False, [[5, 0, 12, 0, 12, 10, 5, 10]])]
    mask = paint(objects, 10, 12)
    assert mask[5, 3] == 1  # not the crowd, though it is listed later
    assert mask[5, 7] == 3  # not the square, which is listed earlier
    assert mask[0, 0] == 255
    assert mask[9, 4] == 255


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ({"size": [9, 12], "counts": [0, 54, 54]}, "the image is"),
        ({"size": [10, 12], "counts": [0, 60, 61]}, "cover 121 pixels"),
        ([], "cannot be rasterised"),
        ("polygon", "cannot be rasterised"),
        ([["a", "b", "c", "d", "e", "f"]], "cannot be rasterised"),
    ],
)
def test_a_segmentation_that_is_none_is_refused(segmentation: Any, reason: str):
    with pytest.raises(BadData, match=reason):
        rasterise(segmentation, 10, 12)


def test_polygons_in_parts_plain_and_packed_runs_are_pixels():
    parts = rasterise([*SQUARE, [9, 9, 11, 9, 11, 10, 9, 10]], 10, 12)
    assert parts[3, 3]
    assert parts[9, 10]
    assert not parts[0, 0]
    plain = rasterise(CROWD, 10, 12)
    assert plain.sum() == 60
    packed = coco_mask.encode(np.asfortranarray(plain.astype(np.uint8)))
    np.testing.assert_array_equal(rasterise(packed, 10, 12), plain)


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
    with pytest.raises(BadData, match="does not hold COCO's instances"):
        Coco(tmp_path, "instances")


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
