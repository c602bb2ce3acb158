"""`jobs.ingest look` writes a page of a dataset, which reports of its chains link."""

import re
from pathlib import Path

import pytest

from jobs.ingest import main
from orchestrator.datasets.catalog import resolve
from orchestrator.records import layout
from orchestrator.store.base import Store
from tests.support.scenes import Boxes, publish_boxes


@pytest.fixture
def boxes(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Return a store with a dataset of two classes, four of whose photos are in both splits."""
    monkeypatch.setenv("STEPCHAIN_CACHE", str(tmp_path / "cache"))
    publish_boxes(store, tmp_path / "built", Boxes(copies=4))
    return store


def look(store: Store, out: Path, *options: str) -> str:
    main(["look", "boxes", "--store", store.uri, "--out", str(out), *options])
    return out.read_text()


def test_the_page_shows_classes_steps_and_photos_that_look_alike(boxes: Store, tmp_path: Path):
    page = look(boxes, tmp_path / "look.html", "--split", "1-1")
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    assert "40 images in train, 12 images in val; 2 classes" in text
    assert "0 crack 20" in text
    assert "1 rust 20" in text
    assert "4 images look like one of train, such as train/train-000 and val/val-000." in text
    assert "4 of the images that were looked at look like one of train" in text
    assert "train/train-002 and val/val-002" in text
    # Three photos of each class, and the pairs.
    assert page.count('src="data:image/') == 3 * 2 + 2 * 4
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)


def test_nothing_is_said_of_a_sound_dataset(store: Store, tmp_path: Path):
    publish_boxes(store, tmp_path / "built", Boxes(counts={"train": 24}))
    page = look(store, tmp_path / "look.html")
    assert "Nothing that is looked for" in page
    assert "None of the images that were looked at resemble each other" in page


def test_the_store_keeps_the_page_for_reports(boxes: Store, tmp_path: Path):
    page = look(boxes, tmp_path / "look.html")
    digest, _ = resolve(boxes, "boxes")
    assert boxes.read(layout.dataset_page(digest)).decode() == page


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--groups", "crack", "roost"), "roost"),
        (("--split", "3-1"), "does not divide 2 classes"),
        (("--sample", "0"), "shows nothing"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    boxes: Store,
    tmp_path: Path,
    options: tuple[str, ...],
    words: str,
    capsys: pytest.CaptureFixture[str],
):
    with pytest.raises(SystemExit) as end:
        look(boxes, tmp_path / "look.html", *options)
    assert end.value.code == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "look.html").exists()
