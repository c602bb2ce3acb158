"""Two plain folders become a dataset."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.datasets import build_dataset
from training.data.folder import Folder, SplitBy
from training.data.source import BadData

CLASSES = ("crack", "rust")
SHARE = SplitBy(val_share=0.25)


def draw(root: Path, *ids: str, ending: str = ".jpg", suffix: str = "") -> tuple[Path, Path]:
    """Write a photo and a mask of each id, and return both folders."""
    for id in ids:
        photo, mask = root / "images" / f"{id}{ending}", root / "masks" / f"{id}{suffix}.png"
        for path in (photo, mask):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4)).save(photo)
        Image.fromarray(np.full((4, 6), 1 + len(id) % 2, np.uint8)).save(mask)
    return root / "images", root / "masks"


def test_folders_of_splits_divide_the_photos(tmp_path: Path):
    source = Folder(*draw(tmp_path, "train/a", "train/bb", "Valid/a", "test/c"), CLASSES, SplitBy())
    assert {split: source.ids(split) for split in source.splits} == {
        "train": ["train/a", "train/bb"],
        "val": ["Valid/a"],
        "test": ["test/c"],
    }
    manifest, bad = build_dataset(source, tmp_path / "built")
    assert (manifest.classes, bad) == (CLASSES, [])
    assert [files.rows for files in manifest.splits.values()] == [2, 1, 1]


def test_a_share_is_drawn_the_same_everywhere(tmp_path: Path):
    folders = draw(tmp_path, *(f"photo {number}" for number in range(8)), ending=".WEBP")
    source = Folder(*folders, CLASSES, SHARE)
    assert source.ids("val") == ["photo 3", "photo 6"]
    assert len(source.ids("train")) == 6
    other = Folder(*folders, CLASSES, SplitBy(val_share=0.25, seed=1))
    assert other.ids("val") != source.ids("val")
    assert sorted(other.ids("val") + other.ids("train")) == sorted(f"photo {n}" for n in range(8))
    with pytest.raises(BadData, match=r"--val-share 1\.5 leaves a split empty"):
        Folder(*folders, CLASSES, SplitBy(val_share=1.5))


def test_lists_divide_the_photos_and_may_name_masks(tmp_path: Path):
    images, masks = draw(tmp_path, "a", "b", "c")
    (masks / "a.png").rename(masks / "label of a.png")
    (tmp_path / "train.csv").write_text("image,mask\na.jpg,masks/label of a.png\nb.jpg,b.png\n")
    (tmp_path / "val.txt").write_bytes("images/c.jpg 1\r\n".encode("utf-16"))
    source = Folder(
        images, masks, CLASSES, SplitBy(lists=(tmp_path / "train.csv", tmp_path / "val.txt"))
    )
    assert (source.ids("train"), source.ids("val")) == (["a", "b"], ["c"])
    assert source.files("train", "a") == (images / "a.jpg", masks / "label of a.png")
    assert source.read("val", "c").mask == (masks / "c.png").read_bytes()
    assert source.remarks()[0].startswith("val.txt: what stands behind the photo's name")


def test_photos_that_no_list_names_are_told(tmp_path: Path):
    folders = draw(tmp_path, "a", "b", "c", "d")
    lists = (tmp_path / "train.txt", tmp_path / "val.txt")
    for path, name in zip(lists, "ab", strict=True):
        path.write_text(name)
    (said,) = Folder(*folders, CLASSES, SplitBy(lists)).remarks()
    assert said.startswith("2 of 4 photos in ")
    assert said.endswith("are in no list and are left out, such as c")


def test_nothing_that_divides_the_photos_is_asked_back(tmp_path: Path):
    with pytest.raises(BadData, match=r"which of the 2 photos .*: give --val-share 0\.2, or"):
        Folder(*draw(tmp_path, "a", "b"), CLASSES, SplitBy())


def test_what_does_not_pair_is_counted_and_left_out_if_asked(tmp_path: Path):
    images, masks = draw(tmp_path, "a", "b", "c", "d", "e")
    (masks / "a.png").unlink()
    (images / "b.jpg").unlink()
    (images / "._c.jpg").touch()
    message = (
        r"1 of 4 photos in .*images have no mask \(a\) and 1 of 4 masks in .*masks have no photo "
        r"\(b\); the other 3 are pairs: .*--on-bad skip"
    )
    with pytest.raises(BadData, match=message):
        Folder(images, masks, CLASSES, SHARE)
    source = Folder(images, masks, CLASSES, SHARE, skip_unpaired=True)
    assert sorted(source.ids("train") + source.ids("val")) == ["c", "d", "e"]
    pairs, litter = source.remarks()
    assert pairs.endswith("these were left out")
    assert litter.startswith("1 hidden or system file was passed over")


def test_masks_with_a_suffix_are_found_when_it_is_given(tmp_path: Path):
    folders = draw(tmp_path, "a", "b", suffix="_mask")
    with pytest.raises(BadData, match=r"2 of 2 photos .*--mask-suffix _mask"):
        Folder(*folders, CLASSES, SHARE)
    assert Folder(*folders, CLASSES, SHARE, "_mask").files("train", "a")[1].name == "a_mask.png"


def test_a_mask_may_differ_from_its_photo_in_capital_letters(tmp_path: Path):
    images, masks = draw(tmp_path, "a", "b", suffix="_mask")
    for name in "ab":
        (masks / f"{name}_mask.png").rename(masks / f"{name.upper()}_Mask.PNG")
    source = Folder(images, masks, CLASSES, SHARE, "_mask")
    assert source.files("train", "a")[1] == masks / "A_Mask.PNG"
    manifest, bad = build_dataset(source, tmp_path / "built")
    assert ([files.rows for files in manifest.splits.values()], bad) == ([1, 1], [])


def test_of_photos_that_differ_in_capital_letters_none_takes_the_mask_of_another(tmp_path: Path):
    images, masks = draw(tmp_path, "a", "A", "b")
    source = Folder(images, masks, CLASSES, SHARE)
    assert [source.files("train", id)[1].name for id in ("a", "A")] == ["a.png", "A.png"]
    (masks / "A.png").unlink()
    with pytest.raises(BadData, match=r"1 of 3 photos in .* have no mask \(A\)"):
        Folder(images, masks, CLASSES, SHARE)


def test_one_folder_may_hold_photos_and_masks(tmp_path: Path):
    draw(tmp_path, "a", "b")
    both = tmp_path / "masks"
    for path in (tmp_path / "images").iterdir():
        path.rename(both / path.name)
    source = Folder(both, both, CLASSES, SHARE)
    assert source.files("train", "a") == (both / "a.jpg", both / "a.png")


def test_two_photos_or_masks_of_one_name_are_a_row(tmp_path: Path):
    images, masks = draw(tmp_path, *"abcdefgh")
    Image.new("RGB", (6, 4)).save(images / "a.png")
    (masks / "b.png").rename(masks / "b.tif")
    (masks / "b.bmp").touch()
    source = Folder(images, masks, CLASSES, SplitBy(val_share=0.5))
    _, bad = build_dataset(source, tmp_path / "out", on_bad="skip")
    assert {row.id: row.reason.partition(";")[0] for row in bad} == {
        "a": f"2 photos stand for 'a': a.jpg and a.png in {images}",
        "b": f"2 masks stand for 'b': b.bmp and b.tif in {masks}",
    }


def test_a_mask_is_of_one_photo(tmp_path: Path):
    images, masks = draw(tmp_path, "train/a", "val/a")
    (masks / "train/a.png").rename(masks / "a.png")
    (masks / "val/a.png").unlink()
    with pytest.raises(BadData, match="train/a and val/a would both have the mask"):
        Folder(images, masks, CLASSES, SplitBy())


def test_a_folder_without_photos_is_named_with_what_it_has(tmp_path: Path):
    images, masks = draw(tmp_path, "a")
    (images / "a.jpg").rename(images / "a.HEIC")
    with pytest.raises(BadData, match=r"holds no photos .*end with \.heic, which are not read"):
        Folder(images, masks, CLASSES, SHARE)
    (images / "a.HEIC").rename(images / "a.jpg")
    mask = masks / "a.png"
    for ending, advice in ((".gif", r"save them as PNG$"), (".npy", "as PNG, or give the folder")):
        mask = mask.rename(mask.with_suffix(ending))
        with pytest.raises(BadData, match=rf"holds no masks .*end with \{ending}, .*{advice}"):
            Folder(images, masks, CLASSES, SHARE)
    with pytest.raises(BadData, match="is not a folder: give the folder of the files as --masks"):
        Folder(images, tmp_path / "nowhere", CLASSES, SHARE)
