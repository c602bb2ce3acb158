"""Marks of tests that start Ray."""

import pytest


def on_ray(seconds: int) -> list[pytest.MarkDecorator]:
    """Return the marks of slow tests on Ray, each of which may take so many seconds."""
    return [
        pytest.mark.slow,
        pytest.mark.ray,
        pytest.mark.timeout(seconds),
        # Ray warns of its own code, and leaves sockets and subprocesses to the garbage collector.
        pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
        pytest.mark.filterwarnings("ignore::ResourceWarning"),
        pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    ]
