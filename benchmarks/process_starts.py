"""Measure how a campaign's processes come up while its steps end.

    python -m benchmarks.process_starts [--slots 4] [--jobs 40] [--seconds 1.5] [--json]

Jobs that only sleep run as trials of Ray Tune, on the local cluster that a campaign starts, first
as Tune starts processes by itself and then as `tune_seams.processes_start_side_by_side` lets it.
"""

import argparse
import json
import os
import time
from contextlib import nullcontext
from functools import partial
from typing import Any

from orchestrator.cluster import tune_seams
from orchestrator.cluster.connection import connect
from orchestrator.cluster.ray_tune import run


class Jobs:
    """A source of jobs, so many at once, that notes when each process first tells something."""

    idle = False

    def __init__(self, count: int, slots: int) -> None:
        self.left = [str(number) for number in range(count)]
        self.running: set[str] = set()
        self.came: dict[int, float] = {}  # seconds after the start, of each process
        self.slots = slots
        self.began = time.monotonic()

    @property
    def finished(self) -> bool:
        return not self.left and not self.running

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def next(self) -> str | None:
        if len(self.running) >= self.slots or not self.left:
            return None
        job = self.left.pop()
        self.running.add(job)
        return job

    def on_message(self, id: str, message: int | str) -> None:
        if isinstance(message, str):
            raise RuntimeError(message)
        self.came.setdefault(message, self.seconds)

    def on_end(self, id: str, lost: str | None = None) -> None:
        if lost:
            raise RuntimeError(lost)
        self.running.discard(id)

    def stop(self) -> None:
        raise KeyboardInterrupt

    def on_stopped(self) -> None:
        """There is nothing to release."""


def rest(spec: str, on_message: Any, seconds: float) -> None:
    """Say which process this is, and sleep."""
    on_message(os.getpid())
    time.sleep(seconds)


def measure(count: int, slots: int, seconds: float) -> Jobs:
    """Run the jobs on the cluster that is connected, and return what was seen."""
    jobs = Jobs(count, slots)
    run(jobs, partial(rest, seconds=seconds), lambda job: job, losses=0, as_message=str)
    return jobs


def main() -> None:
    """Print both times and their ratio, and with --json one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=1.5, help="of a job")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON document")
    options = parser.parse_args()
    connect()
    ours = tune_seams.processes_start_side_by_side
    found: dict[str, Any] = {}
    for name, change in {"by itself": nullcontext, "side by side": ours}.items():
        tune_seams.processes_start_side_by_side = change
        began = time.monotonic()
        jobs = measure(options.jobs, options.slots, options.seconds)
        came = sorted(round(each, 1) for each in jobs.came.values())
        found[name] = {"seconds": time.monotonic() - began, "processes came after": came}
        print(f"{name}: {found[name]['seconds']:.1f} s, processes came after {came} s")
    found["ratio"] = found["by itself"]["seconds"] / found["side by side"]["seconds"]
    print(f"{found['ratio']:.2f} times as fast")
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
