"""Train in milliseconds: stand in for a training and for its scoring, and for nothing else.

A worker calls `orchestrator.execution.worker.train`, which fetches what a step reads, trains,
uploads the files, fetches them again and scores them. Here `fit` and `score`, which it calls, write
a few bytes instead. Leases, journals, records and Ray's processes are the real ones. `SlowStore` is
a folder whose requests take as long as a far server's.
"""

import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.counts import counts_parquet
from orchestrator.campaigns.trial import TrialSpec, run_trial
from orchestrator.execution import attempt, worker
from orchestrator.execution.messages import OnMessage
from orchestrator.execution.worker import Assignment, TrainingOutcome
from orchestrator.records import layout
from orchestrator.store.base import Entry
from orchestrator.store.folder import FolderStore
from training.journal import Journal
from training.runtime import Runtime

SECONDS = 0.02  # that a stand-in trains


def run_stand_in_trial(spec: TrialSpec, on_message: OnMessage) -> None:
    """Run a real trial whose worker does not train."""
    with mock.patch.object(attempt, "train", train_instead):
        run_trial(spec, on_message)


def train_instead(assignment: Assignment, runtime: Runtime) -> TrainingOutcome:
    """Do all that a real worker does, but for training and scoring."""
    with (
        mock.patch.object(worker, "fit", fit_instead),
        mock.patch.object(worker, "score", score_instead),
    ):
        return worker.train(assignment, runtime)


def fit_instead(
    *_: object, parent: Path | None, folder: Path, journal: Journal, **__: object
) -> Path:
    """Write the files of a trained step. A step with a parent reads its weights, as a real one."""
    weights = (parent / layout.MODEL_FILE).read_bytes() if parent else b"weights"
    time.sleep(SECONDS)
    row = {"iteration": 1, "total": 1, "epoch": 1.0, "time": time.time(), "loss": 0.5}
    row |= {"images_per_second": 100.0, "lr/head": 0.1}
    journal.log(row)
    result = folder / "trained"
    result.mkdir()
    (result / layout.MODEL_FILE).write_bytes(weights + b"+")
    (result / layout.CURVES_FILE).write_text(json.dumps([row]))
    return result


def score_instead(*_: object) -> bytes:
    """Return confusion counts of one image that shows every digit.

    The first two digits, which step 0 learns, are predicted right, and the others as background.
    """
    return counts_parquet([(0, each, each if each < 3 else 0, 900) for each in range(11)])


@dataclass(frozen=True)
class SlowStore(FolderStore):
    """A folder in which each request takes `pause` seconds at the median, and some ten times."""

    pause: float = 0.02

    def _wait(self) -> None:
        time.sleep(self.pause * (10 if random.random() < 0.01 else random.uniform(0.5, 1.5)))

    def read(self, key: str) -> bytes:
        self._wait()
        return super().read(key)

    def write(self, key: str, data: bytes, only_if_absent: bool = False) -> bool:
        self._wait()
        return super().write(key, data, only_if_absent)

    def exists(self, key: str) -> bool:
        self._wait()
        return super().exists(key)

    def list(self, prefix: str = "") -> Iterator[str]:
        self._wait()
        return super().list(prefix)

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        self._wait()
        return super().entries(prefix)

    def upload(self, path: Path, key: str) -> None:
        self._wait()
        super().upload(path, key)

    def download(self, key: str, path: Path) -> None:
        self._wait()
        super().download(key, path)

    def delete(self, prefix: str) -> None:
        self._wait()
        super().delete(prefix)

    def local_path(self, key: str) -> Any:
        """Return None, as a server does."""
