from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from orchestrator.store.canonical import canonical_json
from tests.support.datasets import build_dataset, open_split
from tests.support.images import encoded, gray_png, palette_picture, with_orientation
from training.config import EvaluationConfig
from training.data.dataset import SegmentationDataset
from training.data.dataset_writer import assemble_dataset, plan_shards
from training.data.deterministic_png import encode_mask
from training.data.manifest import Manifest
from training.data.reading import (
    BY_VALUE,
    NOTHING_ASKED,
    Asked,
    Reading,
    voc_colour,
    voc_palette,
)
from training.data.shard_writer import write_shard
from training.data.source import BadData, Remark, Sample
from training.data.transforms import evaluation_view
from training.data.voc import VOC_CLASSES

WHOLE = EvaluationConfig(short_side=None, crop=None)
OWN = ("crack", "rust", "moss")
PHOTO = np.zeros((20, 30, 3), np.uint8)
PHOTO[:10, :15] = 250  # light where the mask shows class 2
LABELS = np.zeros((20, 30), np.uint8)
LABELS[:10, :15] = 2


class Given:
    """A source of a few samples."""

    def __init__(self, *samples: tuple[bytes, bytes], classes: tuple[str, ...] = OWN) -> None:
        self.classes = classes
        self.samples = samples
        self.splits = ("train",)

    def ids(self, split: str) -> list[str]:
        return [f"{split}{number}" for number in range(len(self.samples))]

    def read(self, split: str, id: str) -> Sample:
        image, mask = self.samples[int(id.removeprefix(split))]
        return Sample(id, image, mask, (Remark(what="things", detail=f"thing in {id}"),))


def remarks(source: Given, folder: Path, asked: Asked = NOTHING_ASKED) -> list[str]:
    """Return what is said of a source."""
    plans = plan_shards(source, asked=asked)
    jobs = [job for plan in plans.values() for job in plan.jobs]
    written = {job.key: write_shard(source, job, folder) for job in jobs}
    return assemble_dataset(source, plans, written, folder, "error", asked).remarks


def manifest_of(source: Given, folder: Path, asked: Asked = NOTHING_ASKED) -> Manifest:
    return build_dataset(source, folder, asked=asked)[0]


def views(manifest: Manifest, folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return image and mask of each row as training sees them."""
    dataset = SegmentationDataset(
        open_split(manifest, "train", folder),
        np.arange(manifest.splits["train"].rows),
        transform=partial(evaluation_view, config=WHOLE),
        label_map=np.arange(256, dtype=np.uint8),
        seed=0,
    )
    seen = []
    for position in range(len(dataset)):
        image, mask, _ = dataset.view((0, position))
        assert mask is not None
        seen.append((image, mask))
    return seen


def photo(orientation: int = 1) -> bytes:
    """Return PHOTO as a camera stores it that was turned."""
    turns: dict[int, Callable[[Image.Image], Image.Image]] = {
        1: lambda picture: picture,
        3: lambda picture: picture.transpose(Image.Transpose.ROTATE_180),
        6: lambda picture: picture.transpose(Image.Transpose.ROTATE_90),
    }
    return with_orientation(turns[orientation](Image.fromarray(PHOTO)), "PNG", orientation)


def test_turned_photos_are_read_upright_by_training_and_the_bytes_stay(tmp_path: Path):
    mask = encoded(LABELS)
    source = Given((photo(), mask), (photo(6), mask), (photo(3), mask))
    manifest = manifest_of(source, tmp_path)
    assert manifest.reading == Reading(turned=True)
    assert open_split(manifest, "train", tmp_path).index.orientation.tolist() == [1, 6, 3]
    for image, labels in views(manifest, tmp_path):
        np.testing.assert_array_equal(image, PHOTO)
        np.testing.assert_array_equal(labels, LABELS)


def test_a_dataset_that_is_read_as_ever_has_the_content_that_it_ever_had(tmp_path: Path):
    """The digest is that of the version before readings were recorded."""
    manifest = manifest_of(Given((encode_mask(LABELS * 100), encode_mask(LABELS))), tmp_path)
    assert manifest.splits["train"].content == (
        "314517a09cc9a3d08e52ad1cf1693ef19d8df3863752a8a1bf5ffe3cff494bd2"
    )
    assert b"reading" not in canonical_json(manifest)
    (index,) = tmp_path.glob("*.parquet")
    assert "orientation" not in parquet.read_schema(index).names


def test_how_photos_are_turned_is_part_of_the_content(tmp_path: Path):
    source = Given((photo(3), encoded(LABELS)))
    contents = {
        manifest_of(source, tmp_path, Asked(orientation=asked)).splits["train"].content
        for asked in ("upright", "stored")
    }
    assert len(contents) == 2


def test_photos_that_fit_both_ways_are_upright_unless_others_or_the_user_say_otherwise(
    tmp_path: Path,
):
    mask = encoded(LABELS)
    (said,) = remarks(Given((photo(3), mask)), tmp_path)[:1]
    assert "train/train0 is read upright, as EXIF asks" in said
    assert "--orientation stored" in said
    # The mask of a photo of orientation 6 fits as stored only, so masks were made without EXIF.
    stored = with_orientation(PHOTO, "PNG", 6)
    said = remarks(Given((stored, mask), (photo(3), mask)), tmp_path)
    assert "train/train0 is read as stored, against EXIF" in said[0]
    assert "train/train1 is read as stored, against EXIF: so are the masks" in said[1]
    (said,) = remarks(Given((photo(3), mask)), tmp_path, Asked(orientation="stored"))[:1]
    assert "read as stored, against EXIF, as asked" in said


def test_photos_that_contradict_each_other_are_asked_back(tmp_path: Path):
    mask = encoded(LABELS)
    source = Given((with_orientation(PHOTO, "PNG", 6), mask), (photo(6), mask), (photo(3), mask))
    with pytest.raises(BadData, match=r"train2 .*both ways.*--orientation upright or stored"):
        manifest_of(source, tmp_path)
    manifest = manifest_of(source, tmp_path, Asked(orientation="upright"))
    assert open_split(manifest, "train", tmp_path).index.orientation.tolist() == [1, 6, 3]


def coloured(classes: int = 3) -> bytes:
    palette = {id: voc_colour(id) for id in range(classes + 1)}
    return encoded(palette_picture(LABELS, palette))


def test_vocs_classes_need_vocs_palette_or_grays(tmp_path: Path):
    grays = encoded(palette_picture(LABELS, {2: (2, 2, 2)}))
    image = encoded(PHOTO)
    manifest_of(Given((image, coloured()), (image, encoded(LABELS)), classes=VOC_CLASSES), tmp_path)
    manifest_of(Given((image, grays), classes=VOC_CLASSES), tmp_path)
    quantised = encoded(Image.fromarray(LABELS).convert("RGB").quantize(4))
    source = Given((image, quantised), classes=VOC_CLASSES)
    with pytest.raises(
        BadData, match=r"palette is not VOC's; say.*--palette indices .*--palette v"
    ):
        manifest_of(source, tmp_path)
    manifest_of(source, tmp_path, Asked(masks=BY_VALUE))
    with pytest.raises(BadData, match=r"holds the colour .*--palette does not name it"):
        manifest_of(source, tmp_path, Asked(masks=voc_palette(20)))


def test_palettes_that_differ_from_mask_to_mask_are_asked_back(tmp_path: Path):
    image = encoded(PHOTO)
    other = encoded(palette_picture(LABELS, {2: (1, 2, 3)}))
    with pytest.raises(BadData, match=r"train0 and train1 have different palettes.*--palette"):
        manifest_of(Given((image, coloured()), (image, other)), tmp_path)


def test_a_palette_of_grays_may_be_the_classes(tmp_path: Path):
    packed = encoded(palette_picture(LABELS, {0: (3, 3, 3), 2: (1, 1, 1)}))
    with pytest.raises(BadData, match=r"value 0 is gray 3 .*--palette gray their brightness"):
        manifest_of(Given((encoded(PHOTO), packed)), tmp_path)


def test_a_class_in_black_on_a_coloured_background_is_asked_back(tmp_path: Path):
    image = encoded(PHOTO)
    swapped = Given((image, encoded(palette_picture(LABELS, {0: (255, 0, 0), 2: (0, 0, 0)}))))
    with pytest.raises(BadData, match=r"value 2 as black and 0 as #ff0000.*--palette indices"):
        manifest_of(swapped, tmp_path)
    manifest_of(swapped, tmp_path, Asked(masks=BY_VALUE))
    for shown in ({0: (255, 0, 0), 2: (0, 255, 0)}, {0: (0, 0, 0), 2: (0, 0, 0)}):
        manifest_of(Given((image, encoded(palette_picture(LABELS, shown)))), tmp_path)


def test_masks_of_few_bits_are_numbers_unless_others_have_eight(tmp_path: Path):
    image, few = encoded(PHOTO), gray_png(LABELS, 2)
    manifest = manifest_of(Given((image, few)), tmp_path)
    assert manifest.reading == BY_VALUE
    np.testing.assert_array_equal(views(manifest, tmp_path)[0][1], LABELS)
    mixed = Given((image, few), (image, encoded(LABELS)))
    with pytest.raises(BadData, match=r"train0 has 2 bits of gray and that of train1 others"):
        manifest_of(mixed, tmp_path)
    assert manifest_of(mixed, tmp_path, Asked(masks=BY_VALUE)).reading == BY_VALUE


def test_sixteen_bits_and_colours_are_recorded_and_read_by_training(tmp_path: Path):
    image = encoded(PHOTO)
    rgb = np.array([voc_colour(id) for id in range(3)], np.uint8)[LABELS]
    for mask, asked in (
        (gray_png(LABELS, 16), NOTHING_ASKED),
        (encoded(rgb), Asked(masks=voc_palette(3))),
    ):
        manifest = manifest_of(Given((image, mask)), tmp_path, asked)
        assert manifest.reading == asked.reading
        np.testing.assert_array_equal(views(manifest, tmp_path)[0][1], LABELS)


def test_a_dataset_without_any_class_is_asked_about_or_told(tmp_path: Path):
    black_and_white = encoded((LABELS > 0).astype(np.uint8) * 255)
    with pytest.raises(BadData, match=r"only 0 and 255, as that of train0 .*--values 255=NAME"):
        manifest_of(Given((encoded(PHOTO), black_and_white)), tmp_path)
    crack = Asked(masks=Reading(masks="values", values=((255, 1),)))
    manifest = manifest_of(Given((encoded(PHOTO), black_and_white)), tmp_path, crack)
    assert np.unique(views(manifest, tmp_path)[0][1]).tolist() == [0, 1]
    (*_, said) = remarks(Given((encoded(PHOTO), encoded(LABELS * 0))), tmp_path)
    assert "no mask shows a class: all 1 are background only" in said


def test_what_sources_remark_of_images_is_said_once_with_a_count(tmp_path: Path):
    source = Given(*[(encoded(PHOTO), encoded(LABELS))] * 2)
    assert remarks(source, tmp_path) == ["things: 2, the first is thing in train0 of train/train0"]
