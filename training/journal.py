"""Define the journal: it takes the curves and the checkpoints of a training while it runs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, Protocol

from training.checkpoint import Snapshot
from training.curves import CurveRow


class Journal(Protocol):
    """Takes the reports of a training.

    Rank 0 uses it; the others call `stop` alone, and measure time. What it raises ends the
    training.
    """

    # Seconds that this worker's loop waited for `data` and for each `checkpoint` to be taken over.
    waited: dict[str, float]

    def log(self, row: CurveRow) -> None:
        """Take a row of the curves."""
        ...

    def should_stop(self) -> bool:
        """Return whether the training must end. A checkpoint is then saved at once."""
        ...

    def save(self, snapshot: Snapshot, folder: Path) -> None:
        """Keep a checkpoint. It is written to `folder` on the way, which may then be removed.

        It may return before that is done, but not if `should_stop` has returned True.
        """
        ...

    def stop(self) -> NoReturn:
        """Raise the reason why the training ends.

        All workers call it, after `should_stop` returned True on rank 0 and its checkpoint is kept.
        """
        ...


@dataclass
class MemoryJournal:
    """Keeps the rows in memory and hands checkpoints to a function, for scripts and tests."""

    on_save: Callable[[Path, int], object] = lambda folder, iteration: None
    rows: list[CurveRow] = field(default_factory=list)
    waited: dict[str, float] = field(default_factory=dict)

    def log(self, row: CurveRow) -> None:
        self.rows.append(row)

    def should_stop(self) -> bool:
        return False

    def save(self, snapshot: Snapshot, folder: Path) -> None:
        snapshot.write(folder)
        self.on_save(folder, snapshot.iteration)

    def stop(self) -> NoReturn:
        raise RuntimeError("the training was told to stop")
