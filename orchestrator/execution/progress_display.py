"""Show the progress of long work: a bar on a terminal, a line now and then in a log.

A running step is followed from outside. Its rank 0 writes its progress to the store, wherever it
runs, and `follow_step` reads it from there.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from orchestrator.planning.resolver import PlannedStep
from orchestrator.records import layout
from orchestrator.records.attempts import read_curves
from orchestrator.store.base import NotFound, Store, StoreError, is_local
from orchestrator.store.retries import DEFAULT_RETRIES, Retries
from training.curves import CurveRow

log = logging.getLogger(__name__)


class Update(Protocol):
    """Takes how much is done.

    `text` replaces the count. `at_once` prints a line to a log in any case.
    """

    def __call__(self, done: int, text: str = "", at_once: bool = False) -> None: ...


def print_line(console: Console, text: str) -> None:
    """Print a line as it is, whatever its length."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


class LogLines:
    """Prints lines about one piece of work to a log, at most one in `seconds`."""

    def __init__(self, console: Console, seconds: float, repeats: bool = True) -> None:
        """Prepare to print. `repeats`: whether a line that equals the last one is printed."""
        self._console = console
        self._seconds = seconds
        self._repeats = repeats
        self._last = ""
        self._printed = time.monotonic()

    @property
    def due(self) -> bool:
        """Return whether it is time for a line. Lines that take long to make wait for it."""
        return time.monotonic() - self._printed >= self._seconds

    def show(self, line: str, at_once: bool = False) -> None:
        """Print the line if it is due, or `at_once`."""
        if at_once or (self.due and (self._repeats or line != self._last)):
            self._printed = time.monotonic()
            self._last = line
            print_line(self._console, line)


@contextmanager
def show_progress(
    console: Console, label: str, total: int, line_seconds: float = DEFAULT_RETRIES.line_seconds
) -> Iterator[Update]:
    """Show the progress of one piece of work while the body runs.

    Args:
        console: A terminal gets a bar that disappears in the end, anything else gets lines.
        label: Name of the work.
        total: Amount of work.
        line_seconds: The time between two lines in a log.

    Yields:
        The function that takes how much is done.
    """
    began = time.monotonic()
    if not console.is_terminal:
        lines = LogLines(console, line_seconds, repeats=False)

        def print_update(done: int, text: str = "", at_once: bool = False) -> None:
            if done or text:
                words = text or describe_count(done, total, time.monotonic() - began)
                lines.show(f"{label}: {words}", at_once)

        yield print_update
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=console, transient=True, refresh_per_second=2) as bar:
        task = bar.add_task(label, total=total, text="")

        def move_bar(done: int, text: str = "", at_once: bool = False) -> None:
            words = text or describe_count(done, total, time.monotonic() - began)
            bar.update(task, completed=done, text=words)

        yield move_bar


def describe_count(done: int, total: int, seconds: float) -> str:
    """Return how much is done after so many seconds, and how long the rest takes."""
    if not done:
        return f"0/{total}"
    return f"{done}/{total}, {seconds * (total - done) / done:.0f} s to go"


def describe_step(progress: dict[str, Any], batch: int) -> str:
    """Return the progress of an attempt in words. `batch`: images of an iteration."""
    parts = [progress["stage"]]
    if progress["stage"] == "train" and "iteration" in progress:
        speed = progress["images_per_second"]
        remaining = (progress["total"] - progress["iteration"]) * batch / speed
        parts += [
            f"{progress['iteration']}/{progress['total']}",
            f"{remaining:.0f} s to go",
            f"loss {progress['loss']:.4f}",
            f"{speed:.0f} images/s",
        ]
    return ", ".join(parts)


def read_progress(store: Store, step: str, attempt: str) -> dict[str, Any]:
    """Return the progress that an attempt has written; {"stage": "start"} while there is none."""
    try:
        return json.loads(store.read(layout.progress(step, attempt)))
    except NotFound:
        return {"stage": "start"}


@contextmanager
def follow_step(
    store: Store,
    planned: PlannedStep,
    attempt: str,
    console: Console,
    on_rows: Callable[[list[CurveRow]], None],
    retries: Retries = DEFAULT_RETRIES,
) -> Iterator[None]:
    """Show the progress of an attempt while the body runs.

    A thread reads it, and hands new rows of the curves to `on_rows`.
    """
    batch = planned.step.optimization.batch
    stage = "start"
    # The number of rows that were read of each piece of the curves.
    seen: dict[str, int] = {}
    stop = threading.Event()

    def look(update: Update) -> None:
        nonlocal stage
        try:
            for rows in read_curves(store, planned.key, attempt, seen):
                on_rows(rows)
            progress = read_progress(store, planned.key, attempt)
        except StoreError as error:
            # The step itself continues, and the next look may succeed.
            log.warning("cannot read the progress of %s: %s", planned.title, error)
            return
        stage_changed = progress["stage"] != stage
        stage = progress["stage"]
        update(progress.get("iteration", 0), describe_step(progress, batch), stage_changed)

    def keep_looking(update: Update) -> None:
        while not stop.wait(retries.look_seconds(is_local(store))):
            look(update)

    with show_progress(console, planned.title, planned.iterations, retries.line_seconds) as update:
        thread = threading.Thread(
            target=keep_looking, args=(update,), name=f"follow-{planned.key}", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            look(update)
