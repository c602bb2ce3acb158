"""What looks wrong in a dataset is said, and nothing is said of a sound one."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from orchestrator.datasets.catalog import resolve
from orchestrator.report.dataset_findings import findings
from orchestrator.report.dataset_look import look_at
from orchestrator.report.pictures import palette
from orchestrator.store.base import Store
from tests.support.scenes import Boxes, publish_boxes
from training.data.reading import BY_VALUE, NOTHING_ASKED, Asked
from training.data.voc import VOC_CLASSES

GREYS = [value for value in range(256) for _ in range(3)]
SHIFTED = [37 * value % 256 for value in range(768)]


@pytest.fixture
def find(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that publishes boxes and returns what looks wrong in them."""
    monkeypatch.setenv("STEPCHAIN_CACHE", str(tmp_path / "cache"))

    def of(source: Boxes, asked: Asked = NOTHING_ASKED) -> str:
        publish_boxes(store, tmp_path / "built", source, asked=asked)
        _, manifest = resolve(store, "boxes")
        return "\n".join(findings(look_at(store, "boxes", manifest, 60), manifest.classes))

    return of


def test_nothing_is_said_of_a_sound_dataset(find):
    assert find(Boxes()) == ""


@pytest.mark.parametrize(
    ("flip", "words"), [(1, "left to right"), (0, "upside down"), (-1, "by half a turn")]
)
def test_turned_masks_are_seen(find, flip: int, words: str):
    found = find(Boxes(fault=lambda mask: cv2.flip(mask, flip)))
    assert f"the masks of train seem to be turned {words}" in found


def test_photos_that_are_read_against_their_exif_are_named(find):
    found = find(Boxes(exif=3), Asked(orientation="stored"))
    assert "40 of the 40 photos of train that were looked at have an EXIF orientation" in found
    assert "such as train-000" in found


def test_a_palette_that_is_not_vocs_is_seen_where_the_classes_are(find):
    asked = Asked(masks=BY_VALUE)
    found = find(Boxes(classes=VOC_CLASSES, palette=SHIFTED), asked)
    assert "show the class id 0 as #00254a, not VOC's #000000" in found
    assert "palette" not in find(Boxes(palette=SHIFTED), asked)
    for right in (palette().ravel().tolist(), GREYS):
        assert "palette" not in find(Boxes(classes=VOC_CLASSES, palette=right), asked)


def test_images_in_two_splits_are_counted(find):
    class Overlapping(Boxes):
        def read(self, split: str, id: str):
            sample = super().read("train", id)
            return sample._replace(id=id)

    found = find(Overlapping())
    assert "12 of the 12 images of val are in train too, byte for byte" in found


def test_counts_that_are_odd_are_said(find):
    def odd(mask: np.ndarray) -> np.ndarray:
        mask[:20] = 255
        mask[mask == 3] = 0
        return mask

    found = find(Boxes(classes=("road", "sign", "cat"), fault=odd))
    assert "no image of train shows cat" in found
    assert "images of train show no class" in found
    assert "42% of the pixels of train are void (255)" in found
    everywhere = find(Boxes(classes=("road", "sign"), fault=lambda mask: np.maximum(mask, 1)))
    assert "almost every image of train shows road" in everywhere
    assert "no pixel of train is background" in everywhere
