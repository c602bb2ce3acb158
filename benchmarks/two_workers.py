"""Measure what a second worker brings: a digits chain on one CPU, and on two of one CPU each.

    python -m benchmarks.two_workers [--rounds 2]

Both steps of `digits_wilson` are trained and scored on this machine's own Ray, by one worker and by
two, in turn. The command prints images per second of training and of evaluation, each the median
over the rounds, and their ratio. It needs two idle CPUs.
"""

import argparse
import os
import tempfile
from collections import defaultdict
from statistics import median

from rich.console import Console

from orchestrator.cluster.resources import Request
from orchestrator.datasets.ingest import ingest
from orchestrator.execution.context import RunContext
from orchestrator.execution.ensure import ensure_chain
from orchestrator.planning.fields import with_field
from orchestrator.planning.planner import plan_chain
from orchestrator.store.open import open_store
from stepchain.presets import digits_wilson
from training.data.digits import Digits

SCENES = 300  # of each split
EPOCHS = 6.0
Speeds = dict[tuple[str, int], list[float]]  # images per second by what was done and workers


def measure(folder: str, workers: int, speeds: Speeds) -> None:
    """Train and score the chain in a store of its own, and note its speeds."""
    store = open_store(folder)
    ingest(Digits(train=SCENES, val=SCENES), store, "digits")
    chain = digits_wilson()
    for path in ("base.optimization.epochs", "optimization.epochs"):
        chain = with_field(chain, path, EPOCHS)
    request = Request(workers=workers, cpus_per_worker=1)
    context = RunContext(store, request, Console(quiet=True))
    for step in ensure_chain(plan_chain(chain, store), context).steps:
        record = step.record
        kind = f"training, step {record.index}"
        speeds[kind, workers].append(record.images_per_second or 0)
        speeds["evaluation", workers].append(SCENES / record.seconds["evaluate"])


def main() -> None:
    """Measure in turn, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=2)
    rounds = parser.parse_args().rounds
    speeds: Speeds = defaultdict(list)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["STEPCHAIN_CACHE"] = f"{scratch}/cache"
        for number in range(rounds):
            for workers in (1, 2):
                measure(f"{scratch}/{number}-{workers}", workers, speeds)
    print(f"{'images per second':>20}{'1 worker':>10}{'2 workers':>11}{'ratio':>7}")
    for kind in ("training, step 0", "training, step 1", "evaluation"):
        one, two = (median(speeds[kind, workers]) for workers in (1, 2))
        print(f"{kind:>20}{one:>10.0f}{two:>11.0f}{two / one:>7.2f}")


if __name__ == "__main__":
    main()
