"""Check that the table of similarities is in the order of channels."""

import torch

from training.class_similarity import similarity_matrix


def test_the_table_follows_channels_in_whichever_order_a_pair_is_given() -> None:
    pairs = ((9, 2, 3.0), (5, 9, 0.5), (2, 5, 7.0))
    table = similarity_matrix(pairs, new_classes=(9, 4), previous_classes=(5, 2))
    assert torch.equal(table, torch.tensor([[1, 0.5, 3], [1, 1, 1]]))
