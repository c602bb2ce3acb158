from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.datasets import build_dataset
from tests.support.paths import SHARED
from training.data.coco import COCO_CATEGORIES
from training.data.coco_voc import BASE_CATEGORY_IDS, CATEGORY_IDS, CocoVoc, voc_table
from training.data.shards import Index
from training.data.source import BadData
from training.data.transforms import decode_mask
from training.data.voc import VOC_CLASSES, Voc
from training.scenario import select_images, split_groups

ORACLE = SHARED / "data" / "voc_protocol_oracle.npz"
PERSON, BENCH, GRASS = 0, 14, 123  # values of COCO-Stuff's maps


@pytest.fixture
def coco_folder(tmp_path: Path) -> Path:
    """Write images of a bench, of a bench and one pixel of a person, and of nothing but grass."""
    for folder in ("train2017", "val2017"):
        (tmp_path / "coco" / folder).mkdir(parents=True)
        (tmp_path / "coco" / "stuffthingmaps" / folder).mkdir(parents=True)
        for number, value in enumerate((BENCH, BENCH, GRASS)):
            values = np.full((10, 12), value, np.uint8)
            values[0, 0] = PERSON if number == 1 else 255
            Image.fromarray(values).save(
                tmp_path / "coco" / "stuffthingmaps" / folder / f"{number:012d}.png"
            )
            Image.new("RGB", (12, 10)).save(tmp_path / "coco" / folder / f"{number:012d}.jpg")
    return tmp_path / "coco"


def test_60_classes_of_coco_come_before_vocs_20_in_cocos_order():
    assert len(BASE_CATEGORY_IDS) == 60
    assert CATEGORY_IDS[60:] == (
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        9,
        16,
        17,
        18,
        19,
        20,
        21,
        44,
        62,
        63,
        64,
        67,
        72,
    )
    assert CATEGORY_IDS[:8] == (8, 10, 11, 13, 14, 15, 22, 23)


def test_vocs_classes_are_cocos_of_the_same_meaning():
    names = [COCO_CATEGORIES[CATEGORY_IDS[class_id - 1]] for class_id in voc_table()[1:21].tolist()]
    renamed = {
        "airplane": "aeroplane", "dining table": "diningtable", "motorcycle": "motorbike",
        "potted plant": "pottedplant",
        "couch": "sofa", "tv": "tvmonitor",
    }  # fmt: skip
    assert tuple(renamed.get(name, name) for name in names) == VOC_CLASSES


def test_training_has_cocos_images_without_vocs_classes_and_then_vocs(
    coco_folder: Path, voc_folder: Path, tmp_path: Path
):
    source = CocoVoc(coco_folder, Voc(voc_folder), "stuffthingmaps")
    manifest, bad = build_dataset(source, tmp_path / "built")
    assert bad == []
    assert [(split, files.rows) for split, files in manifest.splits.items()] == [
        ("train", 26),
        ("val", 3),
        ("voc_val", 8),
    ]
    index = Index.load(tmp_path / "built" / f"{manifest.splits['train'].index.sha256}.parquet", 80)
    assert index.ids == ["000000000000", "000000000002", *Voc(voc_folder).ids("train")]
    groups = coco_groups("60-20")
    assert select_images(index.labels, groups, 0, "disjoint").tolist() == [0]
    assert select_images(index.labels, groups, 1, "disjoint").tolist() == list(range(2, 26))


def test_two_photos_of_one_name_are_refused(coco_folder: Path, voc_folder: Path):
    photo = coco_folder / "val2017" / "000000000000.jpg"
    photo.with_suffix(".png").write_bytes(photo.read_bytes())
    source = CocoVoc(coco_folder, Voc(voc_folder), "stuffthingmaps")
    with pytest.raises(BadData, match="2 photos stand for '000000000000'"):
        source.read("val", "000000000000")


def coco_groups(split: str) -> list[list[int]]:
    """Return the dataset ids of COCO's 80 classes, group by group."""
    names = [str(class_id) for class_id in range(1, 81)]
    return [list(map(int, group)) for group in split_groups(split, names)]


def test_vocs_masks_are_read_in_the_composites_class_ids(coco_folder: Path, voc_folder: Path):
    source = CocoVoc(coco_folder, Voc(voc_folder), "stuffthingmaps")
    for split, vocs in (("train", "train"), ("voc_val", "val")):
        id = source.voc.ids(vocs)[0]
        before, after = (
            decode_mask(s.read(n, id).mask) for s, n in ((source.voc, vocs), (source, split))
        )
        assert set(np.unique(before)) > {0, 255}
        for value in np.unique(before).tolist():
            expected = (
                value
                if value in (0, 255)
                else 1 + CATEGORY_IDS.index(COCO_IDS[VOC_CLASSES[value - 1]])
            )
            assert set(after[before == value].tolist()) == {expected}


COCO_IDS = {
    "cat": 17,
    "dog": 18,
    "horse": 19,
    "sheep": 20,
    "cow": 21,
    "chair": 62,
    "sofa": 63,
    "person": 1,
}


def test_both_datasets_need_both_splits(coco_folder: Path, voc_folder: Path):
    with pytest.raises(BadData, match=r"needs VOC's train and val.*has no val"):
        CocoVoc(coco_folder, Voc(voc_folder, {"train": "train_aug"}), "stuffthingmaps")


@pytest.mark.shared
@pytest.mark.skipif(
    not ORACLE.exists(),
    reason="the optional folder of official splits (STEPCHAIN_SHARED) is absent",
)
@pytest.mark.parametrize(
    ("split", "sizes"),
    [
        ("60-20", [10582]),
        ("60-5", [3178, 2815, 2373, 2216]),
        ("60-2", [1453, 1149, 953, 921, 1517, 1434, 556, 838, 710, 1051]),
    ],
)
def test_vocs_images_fall_into_the_published_steps(split: str, sizes: list[int]):
    vocs = np.load(ORACLE)["train_aug.image_labels"].astype(bool)
    labels = np.zeros((len(vocs), 80), bool)
    labels[:, voc_table()[1:21].astype(int) - 1] = vocs
    groups = coco_groups(split)
    assert [
        len(select_images(labels, groups, step, "disjoint")) for step in range(1, len(groups))
    ] == sizes
