"""A folder in VOC's layout has VOC's classes only where something says so."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.photos import save_mask, write_voc_lists
from training.data.source import BadData
from training.data.voc import VOC_CLASSES, Voc
from training.data.whose_classes import own_class_names, voc_class_names


def draw(root: Path, values: list[int], prefix: str = "img") -> Voc:
    """Write one photo per value in VOC's layout."""
    for number, old in write_voc_lists(root, {"train": len(values), "val": 1}):
        id = f"{prefix}_{number:06d}"
        lists = root / "ImageSets" / "Segmentation"
        for path in lists.iterdir():
            path.write_text(path.read_text().replace(old, id))
        Image.new("RGB", (4, 4)).save(root / "JPEGImages" / f"{id}.jpg")
        mask = np.full((4, 4), values[number % len(values)], np.uint8)
        save_mask(mask, root / "SegmentationClassAug" / f"{id}.png")
    return Voc(root)


def test_three_classes_of_ones_own_are_asked_for(tmp_path: Path):
    source = draw(tmp_path, [1, 2, 3])
    message = (
        r"ids \(img_000000\) are not VOC's, and its masks hold the values 1, 2, 3, "
        r"which would be aeroplane, bicycle, bird in VOC; .*--classes names\.txt .* --classes voc"
    )
    with pytest.raises(BadData, match=message):
        voc_class_names(source, None)
    assert voc_class_names(source, ["crack,rust,hole"]).names == ("crack", "rust", "hole")
    assert voc_class_names(source, ["voc"]) == (VOC_CLASSES, [])


def test_vocs_ids_and_vocs_numbers_are_proof(tmp_path: Path, voc_folder: Path):
    assert voc_class_names(draw(tmp_path / "a", [8, 12], "2007"), None) == (VOC_CLASSES, [])
    names, (remark,) = voc_class_names(draw(tmp_path / "b", [1, 2, 3], "2007"), None)
    assert names == VOC_CLASSES
    assert remark.startswith("the masks' values 1, 2, 3 are read as VOC's classes aeroplane, bic")
    names, (remark,) = voc_class_names(Voc(voc_folder), None)
    assert names == VOC_CLASSES
    assert remark.startswith("the masks' values 8, 9, 10, 12, 13, 15 and 2 more are read as VOC's")


def test_masks_in_vocs_colours_prove_no_more_than_their_classes(tmp_path: Path, voc_folder: Path):
    source = draw(tmp_path, [1, 2, 3])
    for path in [*source.masks.iterdir(), *Voc(voc_folder).masks.iterdir()]:
        with Image.open(path) as picture:
            colours = picture.convert("RGB")
        colours.save(path)
    with pytest.raises(BadData, match="which would be aeroplane, bicycle, bird in VOC"):
        voc_class_names(source, None)
    assert voc_class_names(Voc(voc_folder), None).names == VOC_CLASSES


def test_masks_that_cannot_be_read_prove_nothing(tmp_path: Path):
    source = draw(tmp_path, [8, 12])
    for path in source.masks.iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(BadData, match="its masks hold no value that can be read; name its classes"):
        voc_class_names(source, None)


@pytest.mark.parametrize("values", [[2, 4, 7], [0], [1, 2, 3, 4, 5, 6], [30, 40]])
def test_a_few_values_or_values_without_gaps_are_no_proof(tmp_path: Path, values: list[int]):
    with pytest.raises(BadData, match="nothing says that"):
        voc_class_names(draw(tmp_path, values), None)


def test_a_file_in_the_folder_names_the_classes(tmp_path: Path):
    source = draw(tmp_path, [1, 2])
    (tmp_path / "labelmap.txt").write_text("background:0,0,0::\ncrack:128,0,0::\nrust:0,128,0::\n")
    names, (remark,) = voc_class_names(source, None)
    assert names == ("crack", "rust")
    assert "labelmap.txt: crack, rust" in remark
    assert own_class_names(None, tmp_path / "other", tmp_path).names == names
    with pytest.raises(BadData, match="nothing names the classes"):
        own_class_names(None, tmp_path / "other")


def test_names_in_a_folder_with_vocs_ids_are_asked_about(tmp_path: Path):
    source = draw(tmp_path, [1, 2], "2008")
    (tmp_path / "classes.txt").write_text("\n".join(VOC_CLASSES))
    assert voc_class_names(source, None).names == VOC_CLASSES
    (tmp_path / "classes.txt").write_text("crack\nrust")
    with pytest.raises(BadData, match=r"names crack, rust, and the ids are VOC's: say whose"):
        voc_class_names(source, None)
