"""Measure how long the loop waits for something, without touching what it computes.

A GPU computes while its host waits for data. There, the time is the most that the GPU can have
lacked.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


def timed(items: Iterable[Item], seconds: dict[str, float], name: str) -> Iterator[Item]:
    """Yield the items; add the time until each one came to `seconds[name]`."""
    asked = time.monotonic()
    for item in items:
        _add(seconds, name, asked)
        yield item
        asked = time.monotonic()


@contextmanager
def measured(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add the time that the block takes to `seconds[name]`, unless it raises."""
    began = time.monotonic()
    yield
    _add(seconds, name, began)


def _add(seconds: dict[str, float], name: str, began: float) -> None:
    seconds[name] = seconds.get(name, 0.0) + time.monotonic() - began
