"""How far a long piece of work has come: a bar with the time left on a terminal, a line now and then in a log."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_SECONDS = 10  # between lines in a log


@contextmanager
def progress_bar(console: Console, label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Gives a function that takes how much of `total` is done so far."""
    if not console.is_terminal:
        yield _lines(console, label, total)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.update(task, completed=done)


def _lines(console: Console, label: str, total: int) -> Callable[[int], None]:
    start = shown = time.monotonic()

    def update(done: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if done and now - shown >= LINE_SECONDS:
            shown = now
            remaining = (now - start) * (total - done) / done
            console.print(
                f"{label}: {done}/{total}, {remaining:.0f} s to go", highlight=False, markup=False
            )

    return update
