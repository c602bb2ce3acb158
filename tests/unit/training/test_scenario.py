import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.support.datasets import build_dataset
from tests.support.paths import GOLDEN, SHARED
from training.config import Task, flatten_groups
from training.data.shards import Index
from training.data.voc import VOC_CLASSES, Voc
from training.scenario import (
    Scenario,
    Setting,
    image_labels,
    label_map,
    own_classes,
    pixel_shares,
    select_images,
    split_groups,
)

PUBLISHED = json.loads((GOLDEN / "voc_selections.json").read_text())
SIZES_5_3 = {
    "disjoint": [1753, 1517, 624, 1296, 3924, 1468],
    "overlap": [2836, 2331, 1542, 2095, 4484, 1468],
}
IMAGES_PER_CLASS = {
    "train_aug": [
        586,
        486,
        698,
        461,
        654,
        385,
        1086,
        1000,
        1081,
        264,
        528,
        1177,
        444,
        482,
        3898,
        487,
        299,
        491,
        500,
        548,
    ],
    "val": [90, 79, 103, 72, 96, 74, 127, 119, 123, 71, 75, 128, 79, 76, 446, 85, 57, 90, 84, 74],
}


def voc_labels(split: str) -> np.ndarray:
    """Return which of the 20 classes each photo of PASCAL VOC 2012 shows, bool [photos, 20]."""
    with np.load(GOLDEN / "voc_labels.npz") as file:
        return np.unpackbits(file[split], axis=1, count=20).astype(bool)


def voc_groups(split: str) -> list[list[int]]:
    ids = {name: class_id for class_id, name in enumerate(VOC_CLASSES, 1)}
    return [list(map(ids.__getitem__, group)) for group in split_groups(split, VOC_CLASSES)]


def task(groups: list[list[int]], **fields: str) -> Task:
    required = {"data": "d", "selection": "s", "images": 1, "supervision": "pixel"}
    return Task.model_validate(required | {"groups": groups} | fields)


@pytest.mark.parametrize("split", IMAGES_PER_CLASS)
def test_the_label_matrix_is_the_benchmarks(split: str):
    assert voc_labels(split).sum(0).tolist() == IMAGES_PER_CLASS[split]


@pytest.mark.parametrize("name", PUBLISHED)
def test_selections_are_the_published_ones(name: str):
    split, named, step = name.split(".")
    setting: Setting = "disjoint" if named == "disjoint" else "overlap"
    number = int(step.removeprefix("step"))
    rows = select_images(voc_labels("train_aug"), voc_groups(split), number, setting)
    assert len(rows) == PUBLISHED[name]["images"]
    assert hashlib.sha256(rows.astype("<i4").tobytes()).hexdigest() == PUBLISHED[name]["sha256"]


@pytest.mark.parametrize("setting", SIZES_5_3)
def test_sizes_of_5_3_are_the_published_ones(setting: Setting):
    groups = voc_groups("5-3")
    sizes = [
        len(select_images(voc_labels("train_aug"), groups, step, setting))
        for step in range(len(groups))
    ]
    assert sizes == SIZES_5_3[setting]


@pytest.mark.shared
def test_labels_read_from_the_sample_photos_are_the_benchmarks(tmp_path: Path):
    root = SHARED / "data" / "voc_sample" / "VOC2012"
    oracle = SHARED / "data" / "voc_protocol_oracle.npz"
    if not (root.is_dir() and oracle.is_file()):
        pytest.skip("the optional folder of real photos is absent; STEPCHAIN_SHARED names it")
    manifest, _ = build_dataset(Voc(root), tmp_path)
    with np.load(oracle) as file:
        known = dict(
            zip(
                file["train_aug.ids"].tolist(),
                file["train_aug.image_labels"].astype(bool),
                strict=True,
            )
        )
    for split in manifest.splits:
        index = Index.load(
            tmp_path / f"{manifest.splits[split].index.sha256}.parquet", len(manifest.classes)
        )
        np.testing.assert_array_equal(index.labels, [known[id] for id in index.ids])


@st.composite
def worlds(draw: st.DrawFn) -> tuple[np.ndarray, list[list[int]]]:
    """Return random image labels, and random groups of some of the classes."""
    classes = draw(st.integers(2, 8))
    order = draw(st.permutations(range(1, classes + 1)))[: draw(st.integers(2, classes))]
    cuts = sorted(draw(st.sets(st.integers(1, len(order) - 1))))
    groups = [order[a:b] for a, b in zip([0, *cuts], [*cuts, len(order)], strict=True)]
    rows = draw(
        st.lists(
            st.lists(st.booleans(), min_size=classes, max_size=classes), min_size=1, max_size=20
        )
    )
    return np.array(rows), groups


@given(worlds())
def test_overlap_selects_by_the_new_classes_and_disjoint_forbids_later_ones(
    world: tuple[np.ndarray, list[list[int]]],
):
    labels, groups = world
    present = [set((np.flatnonzero(row) + 1).tolist()) for row in labels]
    for step, group in enumerate(groups):
        later = {class_id for other in groups[step + 1 :] for class_id in other}
        overlap = [row for row, classes in enumerate(present) if classes & set(group)]
        assert select_images(labels, groups, step, "overlap").tolist() == overlap
        assert select_images(labels, groups, step, "disjoint").tolist() == [
            r for r in overlap if not present[r] & later
        ]


@given(worlds())
def test_disjoint_steps_share_no_image_and_select_all_that_any_step_shows(
    world: tuple[np.ndarray, list[list[int]]],
):
    labels, groups = world
    chosen = [
        row
        for step in range(len(groups))
        for row in select_images(labels, groups, step, "disjoint").tolist()
    ]
    learned = np.array([class_id - 1 for group in groups for class_id in group])
    assert sorted(chosen) == np.flatnonzero(labels[:, learned].any(1)).tolist()


@given(worlds())
def test_a_partition_gives_each_image_to_one_step_whatever_the_order_of_classes(
    world: tuple[np.ndarray, list[list[int]]],
):
    labels, groups = world
    ids = [f"image-{row}" for row in range(len(labels))]
    parts = [
        select_images(labels, groups, n, "partitioned", ids).tolist() for n in range(len(groups))
    ]
    learned = np.array(flatten_groups(groups))
    shown = np.flatnonzero(labels[:, learned - 1].any(1))
    assert sorted(row for part in parts for row in part) == shown.tolist()
    for part, group in zip(parts, groups, strict=True):
        assert labels[part][:, np.array(group) - 1].any(1).all()
    backwards = [group[::-1] for group in groups[::-1]]
    again = [select_images(labels, backwards, n, "partitioned", ids) for n in range(len(groups))]
    assert [rows.tolist() for rows in again[::-1]] == parts


def test_the_class_of_an_image_is_each_of_its_classes_as_often():
    labels = np.tile([True, False, True, True], (3000, 1))
    own = own_classes(labels, (4, 1, 3), [f"image-{row}" for row in range(3000)])
    assert np.bincount(own, minlength=5).tolist() == pytest.approx([0, 1000, 0, 1000, 1000], abs=80)


@given(worlds(), st.integers(0, 7))
def test_steps_of_a_split_see_nothing_of_how_later_groups_are_cut(
    world: tuple[np.ndarray, list[list[int]]], step: int
):
    labels, groups = world
    step %= len(groups)
    merged = groups[: step + 1]
    if step + 1 < len(groups):
        merged = [*merged, list(flatten_groups(groups[step + 1 :]))]
    for setting in ("disjoint", "overlap"):
        np.testing.assert_array_equal(
            select_images(labels, groups, step, setting),
            select_images(labels, merged, step, setting),
        )


@given(base=st.integers(1, 20), increment=st.integers(1, 10), steps=st.integers(0, 6))
def test_groups_of_a_split_are_the_names_in_order(base: int, increment: int, steps: int):
    names = [f"class {n}" for n in range(base + increment * steps)]
    groups = split_groups(f"{base}-{increment}", names)
    assert [name for group in groups for name in group] == names
    assert [len(group) for group in groups] == [base] + [increment] * steps


@pytest.mark.parametrize("split", ["15", "15-4", "0-5", "25-5", "a-b", "15-5-1", "15-0", ""])
def test_a_split_that_does_not_divide_the_classes_is_refused(split: str):
    with pytest.raises(ValueError, match="split"):
        split_groups(split, VOC_CLASSES)


@given(worlds())
def test_label_maps_name_new_classes_by_their_channel_and_the_rest_background(
    world: tuple[np.ndarray, list[list[int]]],
):
    _, groups = world
    learned = [class_id for group in groups for class_id in group]
    table = label_map(task(groups))
    assert [table[class_id] for class_id in groups[-1]] == [
        1 + learned.index(class_id) for class_id in groups[-1]
    ]
    assert not np.delete(table, groups[-1]).any()
    seen = label_map(task(groups, labels="seen"))
    assert [seen[class_id] for class_id in learned] == list(range(1, len(learned) + 1))
    assert not np.delete(seen, learned).any()


def test_void_is_background_or_ignored_as_the_task_says():
    assert label_map(task([[1, 2]]))[255] == 0
    assert label_map(task([[1, 2]], void="ignore"))[255] == 255


@given(worlds())
def test_image_labels_of_previous_classes_are_hidden_unless_all_seen_ones_are_given(
    world: tuple[np.ndarray, list[list[int]]],
):
    labels, groups = world
    learned = np.array([class_id - 1 for group in groups for class_id in group])
    known = image_labels(task(groups), labels)
    previous = len(learned) - len(groups[-1])
    assert known.shape == (len(labels), len(learned))
    assert not known[:, :previous].any()
    np.testing.assert_array_equal(known[:, previous:], labels[:, learned[previous:]])
    np.testing.assert_array_equal(
        image_labels(task(groups, labels="seen"), labels), labels[:, learned]
    )


def test_a_scenario_learns_each_class_once():
    with pytest.raises(ValidationError, match="'cat' stands in the groups twice"):
        Scenario(dataset="voc", groups=(("cat", "dog"), ("cat",)))
    for groups in ((), (("cat",), ())):
        with pytest.raises(ValidationError, match="at least one"):
            Scenario(dataset="voc", groups=groups)


def test_titles_say_the_split_as_papers_do():
    def title(split: str) -> str:
        return Scenario(dataset="voc", groups=split_groups(split, VOC_CLASSES)).title

    assert title("15-1") == "voc 15-1 overlap"
    uneven = Scenario(
        dataset="voc",
        groups=(("cat",), ("dog", "cow"), ("sheep",)),
        setting="disjoint",
        supervision="pixel",
    )
    assert uneven.title == "voc 1-2-1 disjoint"


def test_pixel_shares_are_those_of_the_steps_own_channels() -> None:
    pixels = np.array([[50, 10, 20, 0, 7], [40, 0, 0, 5, 0]])
    first = task([[2, 1]])
    # Classes 3 and 4 read as background.
    assert pixel_shares(first, pixels) == (103 / 134, 21 / 134, 11 / 134)
    second = task([[2, 1], [4, 3]])
    assert pixel_shares(second, pixels) == (8 / 134, 6 / 134)
    unseen = pixel_shares(second, pixels[:1])
    assert unseen == (8 / 89, 1 / 89), "a class without pixels has a share above 0"
