import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from tests.support.datasets import build_dataset
from training.data.digits import Digits
from training.data.manifest import Manifest
from training.data.shards import Index
from training.data.source import BadData
from training.data.transforms import decode_mask
from training.data.validation import BadRows, inspect
from training.data.voc import Voc


def load(manifest: Manifest, folder: Path, split: str = "train") -> Index:
    return Index.load(
        folder / f"{manifest.splits[split].index.sha256}.parquet", len(manifest.classes)
    )


def columns(manifest: Manifest, folder: Path) -> dict[str, list[Any]]:
    """Return the columns of train's index file."""
    path = folder / f"{manifest.splits['train'].index.sha256}.parquet"
    return parquet.read_table(path).to_pydict()


def mask_path(root: Path, number: int) -> Path:
    return root / "SegmentationClassAug" / f"{Voc(root).ids('train')[number]}.png"


def image_path(root: Path, number: int) -> Path:
    return root / "JPEGImages" / f"{Voc(root).ids('train')[number]}.jpg"


def test_every_file_is_named_by_its_digest_and_nothing_else_is_left(
    voc_folder: Path, tmp_path: Path
):
    manifest, bad = build_dataset(Voc(voc_folder), tmp_path / "built", shard_bytes=30_000)
    assert bad == []
    named = {}
    for split in manifest.splits.values():
        named |= {f"{shard.sha256}.arrow": shard for shard in split.shards} | {
            f"{split.index.sha256}.parquet": split.index
        }
        assert sum(shard.rows for shard in split.shards) == split.rows
    assert {path.name for path in (tmp_path / "built").iterdir()} == set(named)
    for name, stored in named.items():
        data = (tmp_path / "built" / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == stored.sha256
        assert len(data) == stored.bytes


def test_the_original_bytes_lie_where_the_index_says_and_where_arrow_finds_them(
    voc_folder: Path, tmp_path: Path
):
    source = Voc(voc_folder)
    folder = tmp_path / "built"
    manifest, _ = build_dataset(source, folder, shard_bytes=60_000)
    index = load(manifest, folder)
    rows_in_shard = columns(manifest, folder)["row"]
    assert len(manifest.splits["train"].shards) > 1
    for row, id in enumerate(source.ids("train")):
        sample = source.read("train", id)
        path = folder / f"{manifest.splits['train'].shards[index.shard[row]].sha256}.arrow"
        data = path.read_bytes()
        for (first, count), original in (
            (index.image_range[row], sample.image),
            (index.mask_range[row], sample.mask),
        ):
            assert data[first : first + count] == original
        with pa.memory_map(str(path)) as file:
            stored = pa.ipc.open_file(file).read_all().slice(rows_in_shard[row], 1).to_pylist()[0]
        assert stored == {"id": id, "image": sample.image, "mask": sample.mask}


def test_the_index_says_what_is_in_each_mask(voc_folder: Path, tmp_path: Path):
    source = Voc(voc_folder)
    manifest, _ = build_dataset(source, tmp_path / "built")
    index = load(manifest, tmp_path / "built")
    stored = columns(manifest, tmp_path / "built")
    assert index.ids == source.ids("train")
    for row, id in enumerate(index.ids):
        mask = decode_mask(source.read("train", id).mask)
        assert (stored["height"][row], stored["width"][row]) == mask.shape
        np.testing.assert_array_equal(
            index.pixels[row], np.bincount(mask.ravel(), minlength=256)[:21]
        )
        np.testing.assert_array_equal(
            np.flatnonzero(index.labels[row]) + 1, np.setdiff1d(mask, [0, 255])
        )


def test_building_again_gives_the_same_bytes_whatever_the_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = Digits(train=40, val=5)
    first, _ = build_dataset(source, tmp_path / "a")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    second, _ = build_dataset(source, tmp_path / "b")
    assert first == second


def test_other_shards_of_the_same_rows_change_files_and_no_identity(
    voc_folder: Path, tmp_path: Path
):
    large, _ = build_dataset(Voc(voc_folder), tmp_path / "a")
    small, _ = build_dataset(Voc(voc_folder), tmp_path / "b", shard_bytes=20_000)
    assert large.splits["train"].shards != small.splits["train"].shards
    assert large.splits["train"].content == small.splits["train"].content
    rows = np.array([2, 5, 11])
    digests = {
        load(m, tmp_path / f).selection_digest(rows) for m, f in ((large, "a"), (small, "b"))
    }
    assert len(digests) == 1


def test_content_changes_with_any_row_with_the_order_and_with_the_classes(
    voc_folder: Path, tmp_path: Path
):
    def content() -> str:
        return build_dataset(Voc(voc_folder), tmp_path / "built")[0].splits["train"].content

    contents = [content()]
    mask = mask_path(voc_folder, 4)
    values = decode_mask(mask.read_bytes())
    values[0, 0] = 20
    Image.fromarray(values).save(mask)
    contents.append(content())
    lists = voc_folder / "ImageSets/Segmentation/train_aug.txt"
    lists.write_text("\n".join(reversed(lists.read_text().split())))
    contents.append(content())

    class Renamed(Voc):
        classes = (*Voc.classes[:-1], "television")

    contents.append(
        build_dataset(Renamed(voc_folder), tmp_path / "built")[0].splits["train"].content
    )
    assert len(set(contents)) == 4


def test_a_selection_digest_depends_on_images_and_order(voc_folder: Path, tmp_path: Path):
    manifest, _ = build_dataset(Voc(voc_folder), tmp_path / "built")
    index = load(manifest, tmp_path / "built")
    digests = {index.selection_digest(np.array(rows)) for rows in ([1, 2], [2, 1], [1], [1, 3])}
    assert len(digests) == 4


def truncate_image(root: Path) -> None:
    image_path(root, 5).write_bytes(image_path(root, 5).read_bytes()[:-400])


def empty_image(root: Path) -> None:
    image_path(root, 5).write_bytes(b"")


def remove_mask(root: Path) -> None:
    mask_path(root, 5).unlink()


def resize_mask(root: Path) -> None:
    Image.fromarray(np.zeros((10, 12), np.uint8)).save(mask_path(root, 5))


def undeclared_class(root: Path) -> None:
    values = decode_mask(mask_path(root, 5).read_bytes())
    values[3, 3] = 21
    Image.fromarray(values).save(mask_path(root, 5))


def colour_mask(root: Path) -> None:
    Image.new("RGB", (59, 48)).save(mask_path(root, 5))


def list_twice(root: Path) -> None:
    lists = root / "ImageSets/Segmentation/train_aug.txt"
    lists.write_text(f"{lists.read_text()}{Voc(root).ids('train')[5]}\n")


FAULTS = [
    (truncate_image, "the image cannot be decoded"),
    (empty_image, "the image cannot be decoded"),
    (remove_mask, "does not exist"),
    (resize_mask, r"the mask is 12 x 10 pixels and the image \d+ x \d+"),
    (undeclared_class, "the mask holds the value 21; declared are 0 to 20"),
    (colour_mask, "the mask holds RGB colours: say which class each is, with --palette"),
    (list_twice, "the id is listed twice"),
]


@pytest.mark.parametrize(("fault", "reason"), FAULTS)
def test_one_bad_row_is_an_error_and_can_be_left_out(
    voc_folder: Path, tmp_path: Path, fault, reason: str
):
    whole, _ = build_dataset(Voc(voc_folder), tmp_path / "built")
    id = Voc(voc_folder).ids("train")[5]
    fault(voc_folder)
    with pytest.raises(BadRows, match=f"train/{id}: .*{reason}.*--on-bad skip"):
        build_dataset(Voc(voc_folder), tmp_path / "refused")
    manifest, bad = build_dataset(Voc(voc_folder), tmp_path / "skipped", on_bad="skip")
    assert {(row.split, row.id) for row in bad} == {("train", id)}
    assert (manifest.splits["train"].left_out, whole.splits["train"].left_out) == (1, 0)
    assert load(manifest, tmp_path / "skipped").ids == [
        other for other in load(whole, tmp_path / "built").ids if other != id
    ]


def test_all_bad_rows_of_all_splits_are_found_before_the_error(voc_folder: Path, tmp_path: Path):
    truncate_image(voc_folder)
    mask_path(voc_folder, 7).unlink()
    for id in Voc(voc_folder).ids("val")[:3]:
        (voc_folder / "JPEGImages" / f"{id}.jpg").write_bytes(b"not a picture")
    with pytest.raises(BadRows, match=r"5 images cannot be used.*and 2 more") as caught:
        build_dataset(Voc(voc_folder), tmp_path / "built")
    assert [row.split for row in caught.value.rows] == ["train"] * 2 + ["val"] * 3


def test_a_split_without_a_usable_image_is_an_error_even_when_skipping(
    voc_folder: Path, tmp_path: Path
):
    for id in Voc(voc_folder).ids("val"):
        (voc_folder / "SegmentationClassAug" / f"{id}.png").unlink()
    with pytest.raises(BadData, match="split 'val' has no usable image"):
        build_dataset(Voc(voc_folder), tmp_path / "built", on_bad="skip")
    (voc_folder / "ImageSets/Segmentation/val.txt").write_text("\n")
    with pytest.raises(BadData, match="split 'val' lists no images"):
        build_dataset(Voc(voc_folder), tmp_path / "built")


def test_more_classes_than_a_mask_can_hold_are_refused(tmp_path: Path):
    source = Digits(train=1, val=1)
    source.classes = tuple(map(str, range(255)))
    with pytest.raises(BadData, match="room for 254"):
        build_dataset(source, tmp_path / "built")


@given(
    kind=st.sampled_from(["image", "mask"]),
    position=st.floats(0, 1, exclude_max=True),
    value=st.integers(0, 255),
)
@settings(max_examples=150, deadline=None)
def test_a_damaged_file_is_bad_data_or_harmless_and_never_another_error(
    kind: str, position: float, value: int
):
    sample = Digits(train=1, val=1).read("train", "train-00000")
    data = bytearray(getattr(sample, kind))
    data[int(position * len(data))] = value
    if kind == "image":
        damaged = sample._replace(image=bytes(data))
    else:
        damaged = sample._replace(mask=bytes(data))
    try:
        row = inspect(damaged, 10)
    except BadData:
        return
    assert row.pixels.sum() == row.width * row.height
