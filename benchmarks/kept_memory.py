"""Measure what a step on a CPU gains by keeping freed memory (`training.allocator`).

    OMP_NUM_THREADS=1 python -m benchmarks.kept_memory

Both steps of `digits_wilson` and `digits_mib` train a few epochs, in a thread of their own as on a
worker. Every eight iterations the setting changes, so both are measured on the same machine at the
same moments. The ratio is that of the CPU times, user and system, of the fastest third.
"""

import ctypes
import resource
import tempfile
import threading
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import torch

from orchestrator.datasets.ingest import ingest
from orchestrator.datasets.stored_split import open_stored_split
from orchestrator.planning.fields import with_field
from orchestrator.planning.planner import plan_chain
from orchestrator.store.open import open_store
from stepchain.presets import digits_mib, digits_wilson
from training.allocator import M_MMAP_MAX, M_TRIM_THRESHOLD, keep_freed_memory
from training.curves import CurveRow
from training.data.digits import Digits
from training.fit import fit
from training.journal import MemoryJournal
from training.runtime import Runtime

ITERATIONS = 8  # of each measurement
SCENES = 240
CHANGES = {"base.optimization.epochs": 24, "optimization.epochs": 48}
# glibc's own settings.
DEFAULTS = {M_MMAP_MAX: 65536, M_TRIM_THRESHOLD: 128 * 1024}
CPU = torch.device("cpu")


class Usage(NamedTuple):
    """CPU seconds and page faults of this process."""

    seconds: float
    faults: int

    @classmethod
    def now(cls) -> "Usage":
        """Return what was used so far."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        return cls(used.ru_utime + used.ru_stime, used.ru_minflt)


class Switching(MemoryJournal):
    """Changes the setting at each row, and measures what training took since the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: dict[bool, list[Usage]] = defaultdict(list)
        self.keeps = True
        self.before: Usage | None = None

    def log(self, row: CurveRow) -> None:
        now = Usage.now()
        if self.before is not None:
            used = Usage(now.seconds - self.before.seconds, now.faults - self.before.faults)
            self.taken[self.keeps].append(used)
        self.keeps = not self.keeps
        if self.keeps:
            keep_freed_memory(CPU)
        else:
            libc = ctypes.CDLL(None)
            for name, value in DEFAULTS.items():
                libc.mallopt(name, value)
        self.before = Usage.now()

    def fastest(self, keeps: bool) -> Usage:
        """Return the means per iteration over the fastest third of the measurements."""
        ordered = sorted(self.taken[keeps])
        third = ordered[: max(1, len(ordered) // 3)]
        seconds = sum(used.seconds for used in third) / len(third)
        faults = sum(used.faults for used in third) // len(third)
        return Usage(seconds / ITERATIONS, faults // ITERATIONS)


def main() -> None:
    """Train the steps and print a line for each."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        store = open_store(str(folder / "store"))
        manifest = ingest(Digits(train=SCENES, val=1), store, "digits", where="here").manifest
        data = open_stored_split(store, manifest, "train", folder / "cache")
        for chain in (digits_wilson(), digits_mib()):
            for path, value in CHANGES.items():
                chain = with_field(chain, path, value)
            parent: Path | None = None
            for planned in plan_chain(chain, store).steps:
                journal = Switching()
                parent = fit(
                    planned.step,
                    data,
                    planned.rows,
                    Runtime(log_every=ITERATIONS),
                    parent=parent,
                    encoder_weights=None,
                    folder=folder / planned.key,
                    resume=None,
                    journal=journal,
                )
                given, kept = journal.fastest(False), journal.fastest(True)
                print(
                    f"{planned.step.method.name:12} step {planned.index}: "
                    f"{given.seconds * 1e3:.1f} ms and {given.faults} page faults an iteration, "
                    f"kept {kept.seconds * 1e3:.1f} ms and {kept.faults}: "
                    f"{given.seconds / kept.seconds:.2f} times",
                    flush=True,
                )


if __name__ == "__main__":
    # A new thread has an arena of its own, as the training thread of a worker has.
    thread = threading.Thread(target=main)
    thread.start()
    thread.join()
