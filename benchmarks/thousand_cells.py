"""Run a campaign of a thousand chains through everything but the training itself.

    python -m benchmarks.thousand_cells [--chains 1000] [--slots 3] [--drivers 1] [--lose 0]
                                        [--pause 0] [--real] [--json]

Workers stand in for training (`benchmarks.stand_in`); the scheduler, Ray Tune, Ray Train, leases,
records and MLflow are the real ones, on a Ray cluster of several nodes on this machine. Each chain
has two steps, and the chains of one of five seeds share step 0.

`--drivers 2` runs the same campaign from two processes at once. `--lose 20` kills a random node
about every 20 seconds and adds another one a little later. `--pause 0.02` makes each request to the
store take about that long. `--real` trains the smallest steps of digits instead.

The command prints what a step cost besides its training, how long workers were idle, how much
memory the drivers held over time, and whether each step was published, and by one attempt. It exits
with 1 if one was not.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from rich.console import Console

from benchmarks.stand_in import SlowStore, run_stand_in_trial
from orchestrator.campaigns.recording import recorded
from orchestrator.campaigns.run import run_campaign
from orchestrator.campaigns.scheduler import Scheduler
from orchestrator.campaigns.trial import TrialSpec
from orchestrator.cluster import ray_tune
from orchestrator.cluster.resources import Request
from orchestrator.datasets.ingest import ingest
from orchestrator.execution.context import RunContext
from orchestrator.planning.campaign import Campaign, sweep
from orchestrator.planning.campaign_plan import make_plan
from orchestrator.planning.chain import Base, Chain
from orchestrator.planning.planner import Planner
from orchestrator.records import layout
from orchestrator.records.repository import Repository
from orchestrator.records.schema import StepRecord
from orchestrator.store.folder import FolderStore
from orchestrator.tracking.tracker import Tracker
from training.config import Augmentation, EvaluationConfig, ModelConfig, Optimization
from training.data.digits import Digits
from training.methods import fine_tuning
from training.scenario import Scenario

ROOT = Path(__file__).parents[1]
SEEDS = 5
SAMPLE_SECONDS = 2.0
# Of a step, while its worker works.
STAGES = ("fetch", "train", "publish", "evaluate")


def cells(chains: int) -> Campaign:
    """Return a campaign of this many chains of two small steps, a multiple of 5."""
    few = Optimization(epochs=1, batch=4, encoder_lr=0.02, head_lr=0.02)
    start = Chain(
        name="cells",
        scenario=Scenario(
            dataset="digits",
            groups=(("0", "1"), ("2",)),
            supervision="pixel",
            setting="overlap",
        ),
        base=Base(optimization=few),
        method=fine_tuning.Config(),
        optimization=few,
        model=ModelConfig(encoder="tiny", output_stride=4, head_channels=4, eval_pooling=8),
        augmentation=Augmentation(crop=32),
        evaluation=EvaluationConfig(short_side=32, crop=32),
    )
    rates = [0.01 * (1 + number) / chains for number in range(chains // SEEDS)]
    axes = {"optimization.head_lr": rates, "seed": range(SEEDS)}
    return Campaign("cells", "What does a step cost besides its training?", sweep(start, axes))


def drive(folder: Path, chains: int, pause: float, real: bool) -> None:
    """Run the campaign in this process, as `jobs.campaign run` does."""
    store = SlowStore(folder / "store", pause=pause) if pause else FolderStore(folder / "store")

    def run(
        scheduler: Scheduler, work: Any, spec: Callable[[str], TrialSpec], **options: Any
    ) -> None:
        ray_tune.run(scheduler, work if real else run_stand_in_trial, spec, **options)

    plan = make_plan(cells(chains), Planner(store), request=Request(cpus_per_worker=1))
    with Tracker(f"sqlite:///{folder}/mlflow.db", folder / f"spool-{os.getpid()}") as tracker:
        context = RunContext(store, plan.request, Console(quiet=True), tracker)
        with recorded(plan, context, tracker):
            outcome = run_campaign(
                "cells", plan.tree, plan.stored, context, plan.costs, run_trials=run
            )
        ended = time.time()
    failed = [chain.reason for chain in outcome.chains if not chain.state.exists]
    delivered = time.time() - ended
    told = {"failed": failed[:3], "problems": outcome.problems, "mlflow": delivered}
    told_by(os.getpid(), folder).write_text(json.dumps(told))
    raise SystemExit(not outcome.complete)


def told_by(driver: int, folder: Path) -> Path:
    """Return the file in which a driver tells how it ended. Its output is Ray's, too."""
    return folder / f"told-{driver}.json"


class Watched:
    """A cluster of nodes on this machine whose nodes are lost, and drivers on it."""

    def __init__(self, slots: int, drivers: int, lose: float) -> None:
        from ray.cluster_utils import Cluster

        os.environ["RAY_AUTH_MODE"] = "disabled"
        resources = {"orchestrator": 4 * slots * drivers}
        head = {"num_cpus": 0, "include_dashboard": False, "resources": resources}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes = [self.cluster.add_node(num_cpus=1) for _ in range(slots)]
        self.slots = slots
        self.lost = 0
        self._lose = lose
        self._draw = random.Random(0)
        self._next = time.monotonic() + 3 * lose

    def shake(self) -> None:
        """Lose a node, or bring one back, if it is time."""
        if not self._lose or time.monotonic() < self._next:
            return
        if len(self.nodes) == self.slots:
            node = self.nodes.pop(self._draw.randrange(self.slots))
            self.cluster.remove_node(node, allow_graceful=False)
            self.lost += 1
        else:
            self.nodes.append(self.cluster.add_node(num_cpus=1))
        self._next = time.monotonic() + self._draw.expovariate(2 / self._lose)


def watch(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run the drivers on a cluster, and return what was seen."""
    watched = Watched(options.slots, options.drivers, options.lose)
    command = [sys.executable, "-m", "benchmarks.thousand_cells", "--drive", str(folder)]
    command += ["--chains", str(options.chains), "--pause", str(options.pause)]
    command += ["--real"] * options.real
    environment = os.environ | {
        "RAY_ADDRESS": watched.cluster.address,
        "STEPCHAIN_CACHE": str(folder / "cache"),
    }
    began = time.monotonic()
    drivers = []
    for _ in range(options.drivers):
        drivers.append(subprocess.Popen(command, cwd=ROOT, env=environment))
    memory: list[list[int]] = [[] for _ in drivers]
    try:
        while any(driver.poll() is None for driver in drivers):
            for driver, seen in zip(drivers, memory, strict=True):
                # A driver that has just ended holds nothing, and would be the last sample.
                if driver.poll() is None and (held := psutil.Process(driver.pid).memory_info().rss):
                    seen.append(held // 1_000_000)
            watched.shake()
            time.sleep(SAMPLE_SECONDS)
        told = [json.loads(told_by(driver.pid, folder).read_text()) for driver in drivers]
    finally:
        for driver in drivers:
            driver.kill()
        watched.cluster.shutdown()
    return {
        "seconds": time.monotonic() - began,
        "told": told,
        "lost": watched.lost,
        "memory": [_quarters(seen) for seen in memory],
    }


def _quarters(seen: Sequence[int]) -> list[int]:
    """Return the megabytes after each quarter of a driver's time."""
    return [seen[max(0, len(seen) * part // 4 - 1)] for part in (1, 2, 3, 4)]


def judge(folder: Path, chains: int) -> dict[str, Any]:
    """Return what the store holds of the campaign: records, attempts, and where time went."""
    store = FolderStore(folder / "store")
    names = list(store.list(layout.STEPS))
    repository = Repository(store)
    records = repository.documents(filter(layout.is_step_record, names), StepRecord)
    published: defaultdict[str, set[str]] = defaultdict(set)
    attempts: defaultdict[str, set[str]] = defaultdict(set)
    for name in names:
        if "/attempts/" in name:
            step, attempt = layout.step_of(name), layout.attempt_of(name)
            attempts[step].add(attempt)
            if name.endswith(f"/files/{layout.MODEL_FILE}"):
                published[step].add(attempt)
    parts = {}
    for part in records[0].seconds if records else ():
        parts[part] = round(median(record.seconds.get(part, 0) for record in records), 3)
    inside = sum(each.seconds[stage] for each in records for stage in STAGES)
    ends = sorted(record.provenance.created for record in records)
    return {
        "steps": len(records),
        "wanted": chains + SEEDS,
        "chains": len(repository.chains()),
        "attempts": sum(map(len, attempts.values())),
        "trained twice": sum(len(each) > 1 for each in published.values()),
        "median seconds": parts,
        "seconds inside": inside,
        "trained": sum(record.seconds["train"] for record in records),
        "ends": (ends[0], ends[-1]) if ends else (),
    }


def mlflow_runs(folder: Path) -> dict[str, int]:
    """Return how many runs MLflow has, and how many keys have two."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiments = [each.experiment_id for each in client.search_experiments()]
    keys: Counter[str] = Counter()
    token = None
    while True:
        page = client.search_runs(experiments, max_results=5000, page_token=token)
        keys.update(run.data.tags["stepchain.key"] for run in page)
        token = page.token
        if not token:
            return {"runs": len(keys), "twice": sum(count > 1 for count in keys.values())}


def main() -> None:
    """Run the campaign, and print a report and, with --json, one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chains", type=int, default=1000, help="a multiple of 5")
    parser.add_argument("--slots", type=int, default=3, help="nodes of one CPU, one step each")
    parser.add_argument("--drivers", type=int, default=1)
    parser.add_argument("--lose", type=float, default=0, help="seconds between two lost nodes")
    parser.add_argument("--pause", type=float, default=0, help="seconds of a request to the store")
    parser.add_argument("--real", action="store_true", help="train")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON document")
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        drive(options.drive, options.chains, options.pause, options.real)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        ingest(Digits(seed=1, train=100, val=10), FolderStore(folder / "store"), "digits")
        seen = watch(options, folder)
        found = judge(folder, options.chains) | seen
        found["mlflow"] = mlflow_runs(folder)
    report(found, options)
    if options.json:
        print(json.dumps(found))
    whole = found["steps"] == found["wanted"] and found["chains"] == options.chains
    raise SystemExit(not whole or bool(found["mlflow"]["twice"]))


def report(found: Mapping[str, Any], options: argparse.Namespace) -> None:
    """Print the report in sentences."""
    held = found["seconds"] * options.slots
    each = (held - found["trained"]) / max(1, found["steps"])
    print(
        f"{found['steps']:,} of {found['wanted']:,} steps and {found['chains']:,} of "
        f"{options.chains:,} chains published in {found['seconds']:.0f} s by {options.drivers} "
        f"drivers on {options.slots} nodes, of which {found['lost']} were lost"
    )
    print(f"{found['attempts']:,} attempts; {found['trained twice']} steps were trained twice")
    print(
        f"a step held a node {each:.2f} s longer than it trained; workers did nothing for "
        f"{1 - found['seconds inside'] / held:.0%} of the time, starts included"
    )
    print("median seconds of a step: " + json.dumps(found["median seconds"]))
    print(f"MB of each driver after each quarter of its time: {found['memory']}")
    print(f"MLflow has {found['mlflow']['runs']:,} runs, {found['mlflow']['twice']} twice")
    print(f"drivers: {found['told']}")


if __name__ == "__main__":
    main()
