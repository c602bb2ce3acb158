from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.datasets import build_dataset
from training.data.ade import ADE_CLASSES, Ade
from training.data.source import BadData
from training.data.transforms import decode_mask


@pytest.fixture
def ade_folder(tmp_path: Path) -> Path:
    root = tmp_path / "ADEChallengeData2016"
    for folder in ("training", "validation"):
        for kind in ("images", "annotations"):
            (root / kind / folder).mkdir(parents=True)
        for number in (2, 1):
            id = f"ADE_{folder}_{number:08d}"
            Image.new("RGB", (6, 4)).save(root / "images" / folder / f"{id}.jpg")
            values = np.full((4, 6), 150, np.uint8)
            values[0] = 0
            Image.fromarray(values).save(root / "annotations" / folder / f"{id}.png")
    return root


def test_there_are_150_classes_each_once():
    assert len(set(ADE_CLASSES)) == len(ADE_CLASSES) == 150
    assert [ADE_CLASSES[n - 1] for n in (1, 13, 51, 101, 150)] == [
        "wall",
        "person",
        "refrigerator",
        "poster",
        "flag",
    ]


def test_pixels_without_annotation_are_void(ade_folder: Path, tmp_path: Path):
    source = Ade(ade_folder)
    assert source.ids("train") == ["ADE_training_00000001", "ADE_training_00000002"]
    sample = source.read("val", "ADE_validation_00000001")
    assert (
        sample.image == (ade_folder / "images/validation/ADE_validation_00000001.jpg").read_bytes()
    )
    mask = decode_mask(sample.mask)
    assert (mask[0] == 255).all()
    assert (mask[1:] == 150).all()
    manifest, bad = build_dataset(source, tmp_path / "built")
    assert (bad, [files.rows for files in manifest.splits.values()]) == ([], [2, 2])


def test_another_folder_is_refused(tmp_path: Path):
    with pytest.raises(BadData, match="give the folder ADEChallengeData2016"):
        Ade(tmp_path)


def test_hidden_files_are_passed_over_and_photos_have_any_ending(ade_folder: Path):
    (ade_folder / "annotations/training/._ADE_training_00000001.png").write_bytes(b"\0\5\26\7")
    photo = ade_folder / "images/training/ADE_training_00000001.jpg"
    photo.rename(photo.with_suffix(".JPEG"))
    source = Ade(ade_folder)
    assert source.ids("train") == ["ADE_training_00000001", "ADE_training_00000002"]
    assert source.read("train", "ADE_training_00000001").image
    assert source.remarks()[0].startswith("1 hidden or system file was passed over")
