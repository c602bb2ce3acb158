import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs import ingest
from orchestrator.datasets.catalog import resolve
from orchestrator.datasets.stored_split import open_stored_split
from orchestrator.store.open import open_store
from training.data.reading import voc_colour


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Write eight images in VOC's layout: cats (8) and dogs (12) with a void border."""
    root = tmp_path / "VOC2012"
    for folder in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClassAug"):
        (root / folder).mkdir(parents=True)
    ids = {
        "train_aug": [f"2007_{number:06d}" for number in range(6)],
        "val": ["2008_000000", "2008_000001"],
    }
    rng = np.random.default_rng(0)
    for name, members in ids.items():
        (root / "ImageSets" / "Segmentation" / f"{name}.txt").write_text("\n".join(members) + "\n")
        for number, id in enumerate(members):
            Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)).save(
                root / "JPEGImages" / f"{id}.jpg"
            )
            mask = np.zeros((24, 32), np.uint8)
            mask[4:20, 4:20] = 255
            mask[6:18, 6:18] = 8 if number % 2 else 12
            picture = Image.fromarray(mask).convert("P")
            picture.putpalette(b"".join(bytes(voc_colour(id)) for id in range(256)))
            picture.save(root / "SegmentationClassAug" / f"{id}.png")
    return root


def run(*arguments: object) -> int:
    """Run `python -m jobs.ingest` with these arguments; return its exit code."""
    try:
        ingest.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def objects(store: Path) -> dict[str, int]:
    return {
        path.relative_to(store).as_posix(): path.stat().st_mtime_ns
        for path in store.rglob("*")
        if path.is_file()
    }


def test_voc_is_published_byte_for_byte(voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert run("voc", "--root", voc, "--store", tmp_path / "store") == 0
    out = capsys.readouterr().out
    assert "voc: 6 images in train, 2 images in val, 20 classes" in out
    assert "uploaded 4 of 4 files" in out
    store = open_store(str(tmp_path / "store"))
    split = open_stored_split(store, resolve(store, "voc")[1], "train", tmp_path / "cache")
    assert np.flatnonzero(split.index.labels[0]).tolist() == [11]
    shard = split.open_shard(0).tobytes()
    for found, path in (
        (split.index.image_range[0], voc / "JPEGImages" / "2007_000000.jpg"),
        (split.index.mask_range[0], voc / "SegmentationClassAug" / "2007_000000.png"),
    ):
        start, length = found.tolist()
        assert shard[start : start + length] == path.read_bytes()
    report = json.loads(store.read("reports/voc.json"))
    assert report == {
        "dataset": "voc",
        "published": True,
        "images": {"train": 6, "val": 2},
        "unusable": [],
    }


def test_doing_it_again_uploads_nothing_and_says_so(
    voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    arguments = ("voc", "--root", voc, "--store", tmp_path / "store", "--name", "cats-and-dogs")
    assert run(*arguments) == 0
    before = objects(tmp_path / "store")
    capsys.readouterr()
    assert run(*arguments) == 0
    out = capsys.readouterr().out
    assert "nothing to upload" in out
    assert "already has exactly this as 'cats-and-dogs'" in out
    assert objects(tmp_path / "store") == before


def test_digits_need_nothing_but_a_store(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert run("digits", "--store", tmp_path / "store", "--train", 5, "--val", 2, "--seed", 1) == 0
    assert "digits: 5 images in train, 2 images in val, 10 classes" in capsys.readouterr().out
    first = resolve(open_store(str(tmp_path / "store")), "digits")
    assert run("digits", "--store", tmp_path / "other", "--train", 5, "--val", 2, "--seed", 1) == 0
    assert resolve(open_store(str(tmp_path / "other")), "digits") == first


def test_coco_and_voc_become_one_dataset(voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    for folder in ("train2017", "val2017"):
        (tmp_path / folder).mkdir()
        (tmp_path / "stuffthingmaps" / folder).mkdir(parents=True)
        for number, value in enumerate(
            (14, 0)
        ):  # a bench, and a person, which is one of VOC's classes
            Image.fromarray(np.full((8, 9), value, np.uint8)).save(
                tmp_path / "stuffthingmaps" / folder / f"{number:012d}.png"
            )
            Image.new("RGB", (9, 8)).save(tmp_path / folder / f"{number:012d}.jpg")
    assert run("coco-voc", "--coco", tmp_path, "--voc", voc, "--store", tmp_path / "store") == 0
    summary = "coco_voc: 7 images in train, 2 images in val, 2 images in voc_val, 80 classes"
    assert summary in capsys.readouterr().out
    assert (
        run("coco", "--root", tmp_path, "--masks", "stuffthingmaps", "--store", tmp_path / "store")
        == 0
    )
    assert "coco: 2 images in train, 2 images in val, 80 classes" in capsys.readouterr().out


def spoil(voc: Path) -> dict[str, str]:
    """Spoil four images; return the expected message about each."""
    (voc / "SegmentationClassAug" / "2007_000000.png").unlink()
    mask = voc / "SegmentationClassAug" / "2007_000001.png"
    Image.fromarray(np.full((24, 32), 77, np.uint8)).save(mask)
    Image.fromarray(np.zeros((10, 10), np.uint8)).save(
        voc / "SegmentationClassAug" / "2007_000002.png"
    )
    image = voc / "JPEGImages" / "2007_000003.jpg"
    image.write_bytes(image.read_bytes()[:200])
    return {
        "2007_000000": "does not exist",
        "2007_000001": "77",
        "2007_000002": "10 x 10 pixels and the image 32 x 24",
        "2007_000003": "cannot be decoded",
    }


def test_unusable_images_are_all_listed_and_nothing_is_published(
    voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    reasons = spoil(voc)
    assert run("voc", "--root", voc, "--store", tmp_path / "store") == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: 4 images cannot be used")
    assert "--on-bad skip" in err
    assert err.count("\n") == 1
    report = json.loads((tmp_path / "store" / "reports" / "voc.json").read_text())
    assert report["published"] is False
    assert [row["id"] for row in report["unusable"]] == list(reasons)
    assert all(reasons[row["id"]] in row["reason"] for row in report["unusable"])
    assert all(id in out for id in reasons)
    assert not [
        key for key in objects(tmp_path / "store") if "/manifests/" in key or "/refs/" in key
    ]


def test_unusable_images_can_be_left_out(voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    reasons = spoil(voc)
    assert run("voc", "--root", voc, "--store", tmp_path / "store", "--on-bad", "skip") == 0
    out = capsys.readouterr().out
    assert "voc: 2 images in train, 2 images in val" in out
    assert all(id in out for id in reasons)
    report = json.loads((tmp_path / "store" / "reports" / "voc.json").read_text())
    assert (report["published"], report["images"], len(report["unusable"])) == (
        True,
        {"train": 2, "val": 2},
        4,
    )


def test_a_folder_may_be_named_from_home(
    voc: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    monkeypatch.setenv("HOME", str(voc.parent))
    below = f"~/{voc.name}"
    assert run("voc", f"--root={below}", "--store", tmp_path / "store") == 0
    for source in ("coco", "ade", "cityscapes"):
        assert run(source, f"--root={below}", "--store", tmp_path / "store") == 2
        error = capsys.readouterr().err
        assert str(voc) in error.replace("\n", ""), error
        assert "~" not in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["voc", "--root", "{tmp}/nowhere"], "nowhere is not a dataset in VOC's layout"),
        (["voc", "--root", "{voc}", "--name", "a/b"], "'a/b' cannot name a dataset"),
        (
            ["voc", "--root", "{voc}", "--store", "{voc}/JPEGImages/2007_000000.jpg"],
            "check the folder, its rights and its disk",
        ),
        (["voc", "--root", "{voc}", "--store", "gs://bucket"], "is not a store"),
        (["voc", "--root", "{voc}", "--sbd", "{tmp}"], "is not SBD's release"),
        (["coco", "--root", "{voc}"], "is not COCO 2017"),
        (["ade", "--root", "{voc}"], "is not ADE20K"),
        (["coco-voc", "--coco", "{tmp}", "--voc", "{voc}"], "is not COCO 2017"),
    ],
)
def test_bad_input_is_one_clear_line(
    voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture, arguments: list[str], message: str
):
    given = [argument.format(tmp=tmp_path, voc=voc) for argument in arguments]
    if "--store" not in given:
        given += ["--store", str(tmp_path / "store")]
    assert run(*given) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_an_unknown_option_is_answered_with_the_nearest(
    voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    assert run("voc", "--root", voc, "--store", tmp_path / "store", "--on-bd", "skip") == 2
    out, err = capsys.readouterr()
    assert "Perhaps you meant" in out + err
    assert "--on-bad" in out + err
    assert not (tmp_path / "store").exists()


def test_an_empty_list_is_refused(voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    (voc / "ImageSets" / "Segmentation" / "val.txt").write_text("")
    assert run("voc", "--root", voc, "--store", tmp_path / "store") == 2
    assert "split 'val' lists no images" in capsys.readouterr().err


def test_a_summary_names_classes_void_and_images_in_both_splits(
    voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    lists = voc / "ImageSets" / "Segmentation"
    (lists / "val.txt").write_text("2007_000001\n2008_000001\n")
    assert run("voc", "--root", voc, "--store", tmp_path / "store") == 0
    out = capsys.readouterr().out
    cats, dogs = [line for line in out.splitlines() if "│ cat" in line or "│ dog" in line]
    assert [cell.strip() for cell in cats.split("│")[1:5]] == ["8", "cat", "3", "2"]
    assert [cell.strip() for cell in dogs.split("│")[1:5]] == ["12", "dog", "3", "0"]
    assert "train: 14.6 % of the pixels are void, no image shows aeroplane, bicycle" in out
    assert "warning: 1 of 2 images in val are in train as well" in out
    lines = "".join(f"2009_{number:06d}\n" for number in range(300))
    (lists / "train_aug.txt").write_text("2007_000001\n" + lines)
    assert run("voc", "--root", voc, "--store", tmp_path / "store") == 2
    assert "and 200 more" in capsys.readouterr().out


def as_own_classes(voc: Path) -> None:
    """Give the folder ids and masks of a stranger: classes 1 and 2."""
    for path in (voc / "ImageSets" / "Segmentation").iterdir():
        path.write_text(path.read_text().replace("20", "img20"))
    for folder in ("JPEGImages", "SegmentationClassAug"):
        for path in sorted((voc / folder).iterdir()):
            path.rename(path.with_name(f"img{path.name}"))
    for number, path in enumerate(sorted((voc / "SegmentationClassAug").iterdir())):
        Image.fromarray(np.full((24, 32), 1 + number % 2, np.uint8)).save(path)


def test_own_classes_in_vocs_layout_are_asked_for_and_named(
    voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    as_own_classes(voc)
    arguments = ("voc", "--root", voc, "--store", tmp_path / "store")
    assert run(*arguments) == 2
    err = capsys.readouterr().err
    assert "masks hold the values 1, 2, which would be aeroplane, bicycle in VOC" in err
    assert err.count("\n") == 1
    (tmp_path / "names.txt").write_bytes(b"\xef\xbb\xbfcrack\r\nrust\r\n")
    assert run(*arguments, "--classes", tmp_path / "names.txt") == 0
    assert resolve(open_store(str(tmp_path / "store")), "voc")[1].classes == ("crack", "rust")
    assert run(*arguments, "--name", "other", "--classes", "crack,", "rust") == 0
    (voc / "labels.txt").write_text("_background_\ncrack\nrust\n")
    assert run(*arguments, "--name", "third") == 0
    assert "labels.txt: crack, rust" in capsys.readouterr().out
    assert run(*arguments, "--sbd", voc, "--classes", "a") == 2


def test_a_name_is_not_taken_from_a_dataset_of_other_classes(
    voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    at = ("--store", tmp_path / "store")
    assert run("digits", "--train", 3, "--val", 1, *at) == 0
    before = resolve(open_store(str(tmp_path / "store")), "digits")[0]
    assert run("voc", "--root", voc, "--name", "digits", *at) == 2
    err = capsys.readouterr().err
    assert "'digits' stands for a dataset of other classes" in err
    assert "(10: 0, 1, 2 ...; now 20: aeroplane, bicycle, bird ...)" in err
    assert resolve(open_store(str(tmp_path / "store")), "digits")[0] == before
    assert run("voc", "--root", voc, "--name", "digits", "--replace", *at) == 0
    assert f"'digits' stood for the dataset {before} before" in capsys.readouterr().out
    assert len(resolve(open_store(str(tmp_path / "store")), "digits")[1].classes) == 20


def test_two_plain_folders_become_a_dataset(
    voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    as_own_classes(voc)
    folders = ("--images", voc / "JPEGImages", "--masks", voc / "SegmentationClassAug")
    arguments = ("folder", *folders, "--store", tmp_path / "store", "--name", "walls")
    assert run(*arguments) == 2
    assert "nothing names the classes" in capsys.readouterr().err
    assert run(*arguments, "--classes", "crack,rust") == 2
    assert "give --val-share 0.2" in capsys.readouterr().err
    assert run(*arguments, "--classes", "crack,rust", "--train-list", voc / "x.txt") == 2
    assert "give both --train-list and --val-list" in capsys.readouterr().err
    (voc / "JPEGImages" / "Thumbs.db").touch()
    assert run(*arguments, "--classes", "crack,rust", "--val-share", "0.25") == 0
    out = capsys.readouterr().out
    assert "walls: 6 images in train, 2 images in val, 2 classes" in out
    assert "1 hidden or system file was passed over" in out
    lists = voc / "ImageSets" / "Segmentation"
    split = ("--train-list", lists / "train_aug.txt", "--val-list", lists / "val.txt")
    assert run(*arguments, "--classes", "crack,rust", *split, "--val-share", "0.5") == 2
    assert run(*arguments, "--classes", "crack,rust", *split) == 0
    monkeypatch.setenv("HOME", str(voc))
    at_home = ("folder", "--images=~/JPEGImages", "--masks=~/SegmentationClassAug")
    assert run(*at_home, *arguments[5:], "--classes", "crack,rust", *split) == 0
