from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from training.data.sbd import VocWithSbd
from training.data.source import BadData
from training.data.transforms import decode_mask


@pytest.fixture
def folders(voc_folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Write VOC with two training images, and SBD with two others and two that VOC has.

    VOC has one of the latter for validation.
    """
    lists = voc_folder / "ImageSets/Segmentation"
    ids, held_out = (
        (lists / "train_aug.txt").read_text().split(),
        (lists / "val.txt").read_text().split(),
    )
    (lists / "train_aug.txt").unlink()
    (lists / "train.txt").write_text("\n".join(ids[2:4]))
    (voc_folder / "SegmentationClassAug").rename(voc_folder / "SegmentationClass")
    sbd = tmp_path / "benchmark_RELEASE" / "dataset"
    (sbd / "cls").mkdir(parents=True)
    for id in (ids[0], ids[1], ids[2], held_out[0]):
        with Image.open(voc_folder / "JPEGImages" / f"{id}.jpg") as picture:
            values = np.full(picture.size[::-1], 9, np.uint8)
        savemat(sbd / "cls" / f"{id}.mat", {"GTcls": {"Segmentation": values, "Boundaries": 0}})
    (sbd / "train.txt").write_text(f"{ids[1]}\n{ids[2]}\n")
    (sbd / "val.txt").write_text(f"{ids[0]}\n{held_out[0]}\n")
    return voc_folder, sbd


def test_training_is_vocs_and_sbds_without_vocs_validation(folders: tuple[Path, Path]):
    source = VocWithSbd(*folders)
    ids = source.ids("train")
    assert ids == sorted(
        path.stem for path in (folders[0] / "JPEGImages").glob("*train_aug_00[0-3].jpg")
    )
    assert len(source.ids("val")) == 8
    assert (decode_mask(source.read("train", ids[0]).mask) == 9).all()
    assert (
        source.read("train", ids[2]).mask
        == (folders[0] / "SegmentationClass" / f"{ids[2]}.png").read_bytes()
    )


def test_what_is_missing_or_broken_is_told(folders: tuple[Path, Path]):
    voc, sbd = folders
    source = VocWithSbd(voc, sbd)
    first, second, *_ = source.ids("train")
    (sbd / "cls" / f"{first}.mat").unlink()
    with pytest.raises(BadData, match="does not exist"):
        source.read("train", first)
    for data in (b"", b"not MATLAB's" * 30):
        (sbd / "cls" / f"{second}.mat").write_bytes(data)
        with pytest.raises(BadData, match=r"cannot be read as MATLAB's GTcls\.Segmentation"):
            source.read("train", second)
    savemat(
        sbd / "cls" / f"{second}.mat",
        {"GTcls": {"Segmentation": np.zeros((4, 4), np.uint8)}},
        do_compression=True,
    )
    packed = bytearray((sbd / "cls" / f"{second}.mat").read_bytes())
    packed[-20] ^= 1
    (sbd / "cls" / f"{second}.mat").write_bytes(packed)
    with pytest.raises(BadData, match=r"cannot be read as MATLAB's GTcls\.Segmentation"):
        source.read("train", second)
    (sbd / "cls" / f"{second}.mat").unlink()
    (sbd / "cls" / f"{second}.mat").mkdir()
    with pytest.raises(BadData, match=r"cannot be read .*check its rights"):
        source.read("train", second)
    (sbd / "cls" / f"{second}.mat").rmdir()
    savemat(sbd / "cls" / f"{second}.mat", {"GTcls": {"Segmentation": np.zeros((4, 4)) + 0.5}})
    with pytest.raises(BadData, match="holds float64"):
        source.read("train", second)
    (sbd / "val.txt").unlink()
    with pytest.raises(BadData, match=r"SBD's list .*val\.txt is missing"):
        VocWithSbd(voc, sbd).ids("train")
    with pytest.raises(BadData, match="give its folder dataset"):
        VocWithSbd(voc, sbd / "cls")
