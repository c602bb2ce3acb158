"""Protocols have the papers' numbers of classes, and COCO-to-VOC the sizes its users publish."""

import numpy as np
import pytest

from tests.support.paths import GOLDEN
from training.config import InputError
from training.data.voc import VOC_CLASSES
from training.protocols import UNUSED, VOC_IN_COCO, coco_to_voc_groups
from training.scenario import select_images, split_groups

OTHERS = tuple(f"other {n}" for n in range(60))
COCO = (
    "person",
    *OTHERS[:20],
    *[name for name in VOC_IN_COCO if name != "person"],
    *UNUSED,
    *OTHERS[20:],
)
# Images of each step after the first, in the follow-up work's voc-5 and voc-2 on VOC.
PUBLISHED = {
    5: [3178, 2815, 2373, 2216],
    2: [1453, 1149, 953, 921, 1517, 1434, 556, 838, 710, 1051],
}


@pytest.mark.parametrize("increment", PUBLISHED)
def test_steps_of_coco_to_voc_have_the_published_sizes(increment: int) -> None:
    with np.load(GOLDEN / "voc_labels.npz") as file:
        labels = np.unpackbits(file["train_aug"], axis=1, count=20).astype(bool)
    _, *later = coco_to_voc_groups((*OTHERS, *VOC_CLASSES), increment)
    ids = {name: class_id for class_id, name in enumerate(VOC_CLASSES, 1)}
    groups = [list(map(ids.__getitem__, group)) for group in later]
    assert [
        len(select_images(labels, groups, step, "disjoint")) for step in range(len(groups))
    ] == PUBLISHED[increment]


def test_groups_are_the_other_classes_then_vocs_in_the_order_of_cocos_ids() -> None:
    base, new = coco_to_voc_groups(COCO)
    assert base == OTHERS
    assert new == tuple(VOC_IN_COCO)
    assert sorted(VOC_IN_COCO.values()) == sorted(VOC_CLASSES)
    assert split_groups("coco-voc", COCO) == (base, new)
    assert split_groups("coco-voc-5", COCO) == (base, new[:5], new[5:10], new[10:15], new[15:])


@pytest.mark.parametrize(
    ("split", "classes", "message"),
    [
        ("coco-voc", COCO[1:], "needs a class 'person'"),
        ("coco-voc-3", COCO, "do not come 3 at a time"),
        ("coco-voc", VOC_CLASSES, "the dataset has none"),
    ],
)
def test_what_cannot_be_coco_to_voc_is_refused(
    split: str, classes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        split_groups(split, classes)


@pytest.mark.parametrize(
    ("split", "classes", "sizes"),
    [
        ("19-1", 20, [19, 1]),
        ("15-5", 20, [15, 5]),
        ("15-1", 20, [15, 1, 1, 1, 1, 1]),
        ("10-10", 20, [10, 10]),
        ("10-5", 20, [10, 5, 5]),
        ("10-2", 20, [10, 2, 2, 2, 2, 2]),
        ("10-1", 20, [10] + [1] * 10),
        ("5-3", 20, [5, 3, 3, 3, 3, 3]),
        ("100-50", 150, [100, 50]),
        ("100-10", 150, [100, 10, 10, 10, 10, 10]),
        ("50-50", 150, [50, 50, 50]),
    ],
)
def test_splits_of_voc_and_ade20k(split: str, classes: int, sizes: list[int]) -> None:
    names = [str(number) for number in range(classes)]
    groups = split_groups(split, names)
    assert [len(group) for group in groups] == sizes
    assert [name for group in groups for name in group] == names
