"""Masks and photos that could be read in several ways: what `jobs.ingest` says and stores."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs import ingest
from orchestrator.datasets.catalog import resolve
from orchestrator.store.open import open_store
from tests.support.images import encoded, gray_png, png_of_size, with_orientation
from tests.support.photos import draw_voc_folder
from training.data.manifest import Manifest
from training.data.reading import voc_colour
from training.data.transforms import decode_mask

FIRST = "2007_train_aug_000"
COLOURS = np.array([voc_colour(id) for id in range(256)], np.uint8)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPCHAIN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return draw_voc_folder(tmp_path / "VOC2012")


def run(folder: Path, *options: str) -> int:
    """Ingest the folder as VOC with these options, and return the exit code."""
    store = str(folder.parent / "store")
    try:
        ingest.main(["voc", "--root", str(folder), "--store", store, "--classes", "voc", *options])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def stored(folder: Path) -> Manifest:
    return resolve(open_store(str(folder.parent / "store")), "voc")[1]


def rewrite(folder: Path, change: Callable[[np.ndarray], bytes]) -> None:
    """Write the masks anew, each from its class ids."""
    for path in (folder / "SegmentationClassAug").iterdir():
        path.write_bytes(change(decode_mask(path.read_bytes())))


def test_masks_in_vocs_colours_need_one_option(folder: Path, capsys: pytest.CaptureFixture):
    assert run(folder) == 0
    by_index = stored(folder)
    rewrite(folder, lambda mask: encoded(COLOURS[np.where(mask == 255, 0, mask)]))
    assert run(folder) == 2
    assert "hold" in (error := capsys.readouterr().err)
    assert "--palette FILE" in error
    assert run(folder, "--palette", "voc") == 0
    by_colour = stored(folder)
    assert by_colour.reading.masks == "colours"
    assert by_colour.splits["train"].content != by_index.splits["train"].content


def test_masks_of_another_palette_are_asked_about_before_anything_is_uploaded(
    folder: Path, capsys: pytest.CaptureFixture
):
    rewrite(folder, lambda mask: encoded(Image.fromarray(mask).convert("RGB").quantize(4)))
    assert run(folder) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "palette is not VOC's; say what masks mean: --palette indices" in error
    assert not (folder.parent / "store" / "datasets" / "shards").exists()


def test_a_photo_upside_down_by_exif_is_said_and_the_answer_can_be_changed(
    folder: Path, capsys: pytest.CaptureFixture
):
    path = folder / "JPEGImages" / f"{FIRST}.jpg"
    path.write_bytes(with_orientation(Image.open(path).copy(), "JPEG", 3))
    assert run(folder) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"train/{FIRST} is read upright, as EXIF asks: masks are drawn on photos as" in out
    assert stored(folder).reading.turned
    assert run(folder, "--orientation", "stored") == 0
    assert "as stored, against EXIF, as asked" in " ".join(capsys.readouterr().out.split())
    assert not stored(folder).reading.turned


def test_black_and_white_masks_are_asked_about_and_named(
    folder: Path, capsys: pytest.CaptureFixture
):
    rewrite(folder, lambda mask: gray_png((mask > 0) * 255, 8))
    assert run(folder) == 2
    assert "if it is a class, say so with --values 255=NAME" in capsys.readouterr().err
    assert run(folder, "--values", "255=cat") == 0
    assert stored(folder).reading.values == ((255, 8),)


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (png_of_size(80_000_000, 80_000_000), "at most 178,956,970 are read"),
        (encoded(Image.new("L", (64, 48)), icc_profile=b"x" * 3_000_000), "ValueError"),
        (None, "a pipe"),
    ],
    ids=["80 million pixels a side", "a large profile", "a pipe"],
)
def test_one_odd_mask_is_one_row(
    folder: Path, odd: bytes | None, reason: str, capsys: pytest.CaptureFixture
):
    path = folder / "SegmentationClassAug" / f"{FIRST}.png"
    path.unlink()
    if odd is None:
        os.mkfifo(path)
    else:
        path.write_bytes(odd)
    assert run(folder) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: 1 image cannot be used (train/{FIRST}: the mask ")
    assert reason in error
    assert run(folder, "--on-bad", "skip") == 0
    assert stored(folder).splits["train"].rows == 23
