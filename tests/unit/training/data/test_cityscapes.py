from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.datasets import build_dataset
from tests.support.streets import write_streets
from training.data.cityscapes import CITYSCAPES_CLASSES, CLASSES_BY_LABEL_ID, Cityscapes
from training.data.source import BadData
from training.data.transforms import decode_mask


def test_there_are_19_classes_in_the_order_of_train_ids():
    assert len(set(CITYSCAPES_CLASSES)) == 19
    assert [CITYSCAPES_CLASSES[n] for n in (0, 1, 10, 13, 16, 18)] == [
        *("road", "sidewalk", "sky", "car", "train", "bicycle")
    ]
    assert list(CLASSES_BY_LABEL_ID) == sorted(CLASSES_BY_LABEL_ID)


def test_classes_have_their_ids_and_all_else_is_void(tmp_path: Path):
    source = Cityscapes(write_streets(tmp_path / "cityscapes"))
    assert source.ids("train")[:2] == ["aachen_000000_000019", "aachen_000001_000019"]
    assert len(source.ids("train")) == 24
    sample = source.read("train", "aachen_000001_000019")
    mask = decode_mask(sample.mask)
    # The second frame shows the classes 5 to 8 of the list, in four columns.
    assert mask[0].tolist() == [5] * 16 + [6] * 16 + [7] * 16 + [8] * 16
    assert (mask[-6:] == 255).all()
    assert not (mask == 0).any()
    manifest, bad = build_dataset(source, tmp_path / "built")
    assert (bad, [files.rows for files in manifest.splits.values()]) == ([], [24, 6])


def test_train_ids_are_read_where_there_are_no_label_ids(tmp_path: Path):
    root = write_streets(tmp_path / "cityscapes")
    expected = Cityscapes(root).read("val", "lindau_000002_000019")
    for path in root.glob("gtFine/*/*/*labelIds.png"):
        values = np.array(Image.open(path))
        train_ids = np.full_like(values, 255)
        for number, label_id in enumerate(CLASSES_BY_LABEL_ID):
            train_ids[values == label_id] = number
        Image.fromarray(train_ids).save(str(path).replace("labelIds", "labelTrainIds"))
        path.unlink()
    assert Cityscapes(root).read("val", "lindau_000002_000019") == expected


def test_frames_may_lie_in_the_splits_folder_without_a_city(tmp_path: Path):
    root = write_streets(tmp_path / "cityscapes")
    expected = Cityscapes(root).read("val", "lindau_000002_000019")
    for path in [*root.glob("*/*/*/*.png")]:
        path.rename(path.parents[1] / path.name)
    source = Cityscapes(root)
    assert len(source.ids("train")) == 24
    assert source.read("val", "lindau_000002_000019") == expected


def test_a_photo_that_is_missing_is_named(tmp_path: Path):
    root = write_streets(tmp_path / "cityscapes")
    (root / "leftImg8bit/train/aachen/aachen_000003_000019_leftImg8bit.png").unlink()
    with pytest.raises(BadData, match=r"aachen_000003_000019: the image .* does not exist"):
        build_dataset(Cityscapes(root), tmp_path / "built")


def test_another_folder_is_refused(tmp_path: Path):
    with pytest.raises(BadData, match=r"no folder leftImg8bit/train; give the folder into which"):
        Cityscapes(tmp_path)
    root = write_streets(tmp_path / "cityscapes")
    for path in root.glob("gtFine/val/*/*.png"):
        path.unlink()
    with pytest.raises(BadData, match=r"val has no file \*_gtFine_labelIds\.png nor"):
        Cityscapes(root)
