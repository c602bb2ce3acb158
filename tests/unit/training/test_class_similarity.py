"""How alike classes are: VOC's own groups, and the table in the order of channels."""

import torch

from training.class_similarity import VOC_GROUPS, similarity_matrix, voc_similarity
from training.data.voc import VOC_CLASSES


def test_every_voc_class_is_in_one_group() -> None:
    grouped = [name for names in VOC_GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(VOC_CLASSES)


def test_classes_of_a_group_are_alike_and_others_are_not_named() -> None:
    assert voc_similarity(("cat", "bus", "dog", "unknown", "cow"), 3) == (
        (1, 3, 3),
        (1, 5, 3),
        (3, 5, 3),
    )


def test_the_table_follows_channels_whichever_way_a_pair_is_written() -> None:
    pairs = ((9, 2, 3.0), (5, 9, 0.5), (2, 5, 7.0))
    table = similarity_matrix(pairs, new_classes=(9, 4), previous_classes=(5, 2))
    assert torch.equal(table, torch.tensor([[1, 0.5, 3], [1, 1, 1]]))
