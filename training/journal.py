"""Define the journal: it takes the curves and the checkpoints of a training while it runs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from training.curves import CurveRow


class Journal(Protocol):
    """Takes the reports of a training.

    It is used on rank 0 only, and what it raises ends the training.
    """

    def log(self, row: CurveRow) -> None:
        """Take a row of the curves."""
        ...

    def should_stop(self) -> bool:
        """Return whether the training must end.

        A checkpoint is then saved at once, and `save` raises.
        """
        ...

    def save(self, folder: Path, iteration: int) -> None:
        """Keep the checkpoint in `folder`, taken after `iteration` iterations.

        The folder may be removed.
        """
        ...


@dataclass
class MemoryJournal:
    """Keeps the rows in memory and hands checkpoints to a function, for scripts and tests."""

    on_save: Callable[[Path, int], object] = lambda folder, iteration: None
    rows: list[CurveRow] = field(default_factory=list)

    def log(self, row: CurveRow) -> None:
        self.rows.append(row)

    def should_stop(self) -> bool:
        return False

    def save(self, folder: Path, iteration: int) -> None:
        self.on_save(folder, iteration)
