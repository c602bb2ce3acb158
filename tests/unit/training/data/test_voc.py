from pathlib import Path

import pytest

from training.data.source import BadData
from training.data.voc import VOC_CLASSES, Voc


def test_a_voc_folder_hands_out_the_files_bytes_in_list_order(voc_folder: Path):
    source = Voc(voc_folder)
    ids = (voc_folder / "ImageSets/Segmentation/train_aug.txt").read_text().split()
    assert source.splits == ("train", "val")
    assert source.ids("train") == ids
    sample = source.read("train", ids[3])
    assert sample.id == ids[3]
    assert sample.image == (voc_folder / "JPEGImages" / f"{ids[3]}.jpg").read_bytes()
    assert sample.mask == (voc_folder / "SegmentationClassAug" / f"{ids[3]}.png").read_bytes()


def test_voc_names_its_classes_in_the_order_of_their_ids():
    assert len(VOC_CLASSES) == 20
    assert [
        VOC_CLASSES.index(name) + 1 for name in ("aeroplane", "cat", "cow", "person", "tvmonitor")
    ] == [1, 8, 10, 15, 20]


def test_the_list_train_stands_in_for_train_aug_and_an_absent_split_is_left_out(voc_folder: Path):
    lists = voc_folder / "ImageSets/Segmentation"
    (lists / "train_aug.txt").rename(lists / "train.txt")
    (lists / "val.txt").unlink()
    source = Voc(voc_folder)
    assert source.splits == ("train",)
    assert len(source.ids("train")) == 24


def test_masks_of_voc_alone_are_used_where_those_of_sbd_are_absent(voc_folder: Path):
    (voc_folder / "SegmentationClassAug").rename(voc_folder / "SegmentationClass")
    source = Voc(voc_folder)
    assert source.read("val", source.ids("val")[0]).mask


def test_a_split_can_name_its_list(voc_folder: Path):
    source = Voc(voc_folder, {"holdout": "val"})
    assert source.splits == ("holdout",)
    assert len(source.ids("holdout")) == 8


def test_a_missing_root_is_refused_with_the_folder_to_give(tmp_path: Path):
    with pytest.raises(BadData, match=r"nowhere.*ImageSets/Segmentation.*give the folder"):
        Voc(tmp_path / "nowhere")


def test_a_folder_without_any_list_is_refused(voc_folder: Path):
    for path in (voc_folder / "ImageSets/Segmentation").iterdir():
        path.unlink()
    with pytest.raises(BadData, match=r"none of train_aug\.txt"):
        Voc(voc_folder)


def test_a_list_that_was_asked_for_and_is_absent_is_named(voc_folder: Path):
    with pytest.raises(BadData, match=r"trainval\.txt"):
        Voc(voc_folder, {"train": "trainval"}).ids("train")


@pytest.mark.parametrize(
    ("what", "folder"), [("image", "JPEGImages"), ("mask", "SegmentationClassAug")]
)
def test_an_image_or_mask_that_is_missing_is_named(voc_folder: Path, what: str, folder: str):
    source = Voc(voc_folder)
    id = source.ids("train")[0]
    next((voc_folder / folder).glob(f"{id}.*")).unlink()
    with pytest.raises(BadData, match=f"the {what} .*{folder}.*does not exist"):
        source.read("train", id)


@pytest.mark.parametrize("ending", ["JPG", "jpeg", "png", "webp"])
def test_photos_have_any_ending(voc_folder: Path, ending: str):
    id = Voc(voc_folder).ids("train")[0]
    photo = voc_folder / "JPEGImages" / f"{id}.jpg"
    photo.rename(photo.with_suffix(f".{ending}"))
    assert Voc(voc_folder).read("train", id).image == photo.with_suffix(f".{ending}").read_bytes()


def test_the_lists_of_the_papers_repositories_are_read(voc_folder: Path):
    ids = Voc(voc_folder).ids("train")
    lists = voc_folder / "ImageSets/Segmentation"
    lines = [f"/JPEGImages/{id}.jpg /SegmentationClassAug/{id}.png\n" for id in ids]
    (lists / "train_aug.txt").write_text("".join(lines))
    source = Voc(voc_folder)
    assert source.ids("train") == ids
    assert source.files("train", ids[0]) == (
        voc_folder / "JPEGImages" / f"{ids[0]}.jpg",
        voc_folder / "SegmentationClassAug" / f"{ids[0]}.png",
    )
    assert source.remarks() == []


def test_what_is_passed_over_is_said_once(voc_folder: Path):
    lists = voc_folder / "ImageSets/Segmentation"
    (lists / "val.txt").write_text((lists / "val.txt").read_text().replace("\n", " 7 14\n"))
    for folder in ("JPEGImages", "SegmentationClassAug"):
        (voc_folder / folder / ".DS_Store").touch()
    columns, litter = Voc(voc_folder).remarks()
    assert "passed over in 8 lines, such as line 1, '2007_val_000 7 14'" in columns
    assert litter.startswith("2 hidden or system files were passed over")


def test_lists_and_masks_are_found_in_other_capital_letters(voc_folder: Path):
    lists = voc_folder / "ImageSets/Segmentation"
    (lists / "train_aug.txt").rename(lists / "Train.txt")
    source = Voc(voc_folder)
    assert source.splits == ("train", "val")
    id = source.ids("val")[0]
    assert source.remarks() == []
    mask = voc_folder / "SegmentationClassAug" / f"{id}.png"
    mask.rename(mask.with_name(mask.name.upper()))
    assert Voc(voc_folder).read("val", id).mask == mask.with_name(mask.name.upper()).read_bytes()


def test_a_split_without_a_list_is_told_with_the_lists_that_there_are(voc_folder: Path):
    lists = voc_folder / "ImageSets/Segmentation"
    (lists / "train_aug.txt").rename(lists / "training.txt")
    (said,) = Voc(voc_folder).remarks()
    assert said.startswith("there is no split train: ")
    assert said.endswith("has no train_aug.txt or train.txt, but training.txt, val.txt")
