"""Test that a job waits for the nodes of its allocation, and for how long."""

import pytest

from infra.slurm.wait_for_nodes import wait_for_nodes


def test_waiting_for_nodes_ends_when_all_have_come_or_says_how_many_have():
    found = iter([0, 1, 3])
    wait_for_nodes(3, lambda: next(found), sleep=lambda seconds: None)
    now = iter(range(100))
    with pytest.raises(TimeoutError, match="Ray runs on 2 of 3 nodes after 10 s"):
        wait_for_nodes(3, lambda: 2, 10, clock=lambda: next(now), sleep=lambda seconds: None)
