"""Let a test do the work of workers in its own process."""

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.cluster import workers


def replace_workers(patch: pytest.MonkeyPatch, run: Callable[..., Any]) -> None:
    """Replace `workers.run` by `run`, for which no team has to start."""
    patch.setattr(workers, "run", run)
    patch.setattr(workers, "await_team", lambda *_: None)
