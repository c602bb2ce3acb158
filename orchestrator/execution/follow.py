"""Follow a running step from outside: its progress for people, its curves for the tracker.

What is shown is read from the store, where the step's rank 0 writes it, wherever in the world that is. On a terminal it is
a bar; in a log, a line now and then.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from orchestrator.planning.resolver import PlannedStep
from orchestrator.records import layout
from orchestrator.records.attempts import read_curves
from orchestrator.store.base import NotFound, Store, StoreError, is_local
from training.curves import CurveRow

log = logging.getLogger(__name__)

LOOK_SECONDS = {True: 1, False: 5}  # between looks into the store: a folder, a server
LINE_SECONDS = 10  # between lines in a log

Update = Callable[[dict[str, Any]], None]  # takes an attempt's progress


@contextmanager
def following(
    store: Store,
    planned: PlannedStep,
    attempt: str,
    console: Console,
    curves: Callable[[list[CurveRow]], None],
) -> Iterator[None]:
    """While the body runs, show how far the attempt is and hand new rows of its curves to `curves`, from a thread."""
    if console.quiet:  # a campaign's trial: whoever started it looks by himself
        yield
        return
    seen: dict[str, int] = {}
    stop = threading.Event()

    def look(update: Update) -> None:
        try:
            for rows in read_curves(store, planned.key, attempt, seen):
                curves(rows)
            update(json.loads(store.read(layout.progress(planned.key, attempt))))
        except NotFound:
            update({"stage": "start"})
        except StoreError as error:  # the step itself goes on; the next look may succeed
            log.warning("cannot see how far %s is: %s", planned.title, error)

    def keep_looking(update: Update) -> None:
        while not stop.wait(LOOK_SECONDS[is_local(store)]):
            look(update)

    with (_bar if console.is_terminal else _lines)(console, planned) as update:
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


@contextmanager
def _bar(console: Console, planned: PlannedStep) -> Iterator[Update]:
    """A progress bar that goes when the step is done."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    state = TextColumn("{task.fields[state]}")
    with Progress(*columns, state, console=console, transient=True, refresh_per_second=2) as bar:
        task = bar.add_task(planned.title, total=planned.iterations, state="start")
        yield lambda progress: bar.update(
            task, completed=progress.get("iteration", 0), state=describe(progress)
        )


@contextmanager
def _lines(console: Console, planned: PlannedStep) -> Iterator[Update]:
    """A line whenever the stage changes, and every so often."""
    shown: dict[str, Any] = {"time": -LINE_SECONDS, "progress": None}

    def update(progress: dict[str, Any]) -> None:
        before = shown["progress"] or {}
        changed = progress.get("stage") != before.get("stage")
        due = time.monotonic() - shown["time"] >= LINE_SECONDS and progress != before
        if changed or due:
            line = f"{planned.title}: {describe(progress, planned.step.optimization.batch)}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
            shown.update(time=time.monotonic(), progress=progress)

    yield update


def describe(progress: dict[str, Any], batch: int | None = None) -> str:
    """An attempt's progress in words; with the batch size, what remains as well."""
    parts = [progress["stage"]]
    if progress["stage"] == "train" and "iteration" in progress:
        if batch:
            remaining = (
                (progress["total"] - progress["iteration"]) * batch / progress["images_per_second"]
            )
            parts += [f"{progress['iteration']}/{progress['total']}", f"{remaining:.0f} s to go"]
        parts += [f"loss {progress['loss']:.4f}", f"{progress['images_per_second']:.0f} images/s"]
    return ", ".join(parts)
