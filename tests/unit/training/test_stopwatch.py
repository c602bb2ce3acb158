"""The stopwatch adds up what was waited for, and nothing that happens in between."""

import time
from collections.abc import Iterator

import pytest

from training.stopwatch import measured, timed

PAUSE = 0.05


def slow(count: int) -> Iterator[int]:
    for number in range(count):
        time.sleep(PAUSE)
        yield number


def test_the_time_until_each_item_comes_is_added_up():
    seconds = {"data": 10.0}
    began = time.monotonic()
    assert list(timed(slow(3), seconds, "data")) == [0, 1, 2]
    assert 10 + 3 * PAUSE <= seconds["data"] <= 10 + time.monotonic() - began


def test_what_is_done_with_an_item_does_not_count():
    seconds: dict[str, float] = {}
    for _ in timed(range(3), seconds, "data"):
        time.sleep(PAUSE)
    assert seconds["data"] < 3 * PAUSE


def test_blocks_add_up_by_name():
    seconds: dict[str, float] = {}
    for name in ("checkpoint", "checkpoint", "data"):
        with measured(seconds, name):
            time.sleep(PAUSE)
    assert seconds["checkpoint"] >= 2 * PAUSE
    assert seconds["data"] >= PAUSE


def test_a_block_that_raises_is_not_counted():
    seconds: dict[str, float] = {}
    with pytest.raises(ZeroDivisionError), measured(seconds, "checkpoint"):
        raise ZeroDivisionError
    assert seconds == {}
