"""Measure what a step costs besides fetching, training and scoring.

    python -m benchmarks.overhead [--steps 6] [--json]

A chain of tiny steps runs as a campaign on this machine's own Ray, one step after another, and the
time between the steps is split. Ray hands a trial to its process and reports the end; the workers
take the step and give its result back. The rest is ours: choosing the step, the lease, the records,
the evaluation's file, deleting checkpoints. Both are the same for a step that trains for hours.

The command prints the seconds of the first step, for which the trial's process and the workers have
to be started, and the median of the others, which the same workers train. With `--json` the last
line is one JSON document: the seconds of each part, the sums `ray` and `ours`, and
`ray_seconds_warm`, the median of Ray's share from the second step on.
"""

import argparse
import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

from rich.console import Console

from orchestrator.campaigns.run import run_campaign
from orchestrator.campaigns.scheduler import Scheduler
from orchestrator.campaigns.trial import TrialSpec, run_trial
from orchestrator.cluster import ray_tune
from orchestrator.cluster.resources import Request
from orchestrator.datasets.ingest import ingest
from orchestrator.execution.context import RunContext
from orchestrator.execution.messages import Message, Notice, OnMessage
from orchestrator.planning.chain import Base, Chain
from orchestrator.planning.cost import Costs
from orchestrator.planning.planner import Planner
from orchestrator.planning.step_tree import build_tree
from orchestrator.planning.store_state import look_up_steps
from orchestrator.records.repository import Repository
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from training.config import Augmentation, EvaluationConfig, ModelConfig, Optimization
from training.data.digits import Digits
from training.methods import fine_tuning
from training.scenario import Scenario

RAY = ("trial", "start", "stop", "return")
OURS = ("choose", "store")
STEP = ("fetch", "train", "publish", "evaluate")
MARK = "overhead "


class TimedSource:
    """A scheduler that notes when a step was asked for, handed out, and ended.

    All times are Unix seconds of this machine.
    """

    def __init__(self, scheduler: Scheduler, times: dict[str, dict[str, float]]) -> None:
        self.scheduler = scheduler
        self.times = times

    @property
    def finished(self) -> bool:
        return self.scheduler.finished

    def next(self) -> str | None:
        asked = time.time()
        id = self.scheduler.next()
        if id:
            self.times[id] |= {"asked": asked, "handed": time.time()}
        return id

    def on_message(self, id: str, message: Message) -> None:
        if isinstance(message, Notice) and message.text.startswith(MARK):
            self.times[id] |= json.loads(message.text.removeprefix(MARK))
        else:
            self.scheduler.on_message(id, message)

    def on_end(self, id: str, lost: str | None = None) -> None:
        self.times[id]["ended"] = time.time()
        self.scheduler.on_end(id, lost)

    def stop(self) -> None:
        self.scheduler.stop()

    @property
    def idle(self) -> bool:
        return self.scheduler.idle

    def on_stopped(self) -> None:
        self.scheduler.on_stopped()


def run_timed_trial(spec: TrialSpec, on_message: OnMessage) -> None:
    """Run a trial, and send when it began and ended."""
    began = time.time()
    run_trial(spec, on_message)
    on_message(Notice(MARK + json.dumps({"began": began, "done": time.time()})))


def measure(store: Store, steps: int) -> list[dict[str, float]]:
    """Train a chain, and return the seconds of each step's parts, in order."""
    tree = build_tree([Planner(store).plan(_chain(steps))])
    times: dict[str, dict[str, float]] = defaultdict(dict)

    def run(
        scheduler: Scheduler, work: object, spec_of: Callable[[str], TrialSpec], **options: Any
    ) -> None:
        ray_tune.run(TimedSource(scheduler, times), run_timed_trial, spec_of, **options)

    context = RunContext(store, Request(cpus_per_worker=1), Console(quiet=True))
    stored = look_up_steps(tree, store)
    outcome = run_campaign("overhead", tree, stored, context, Costs(), run_trials=run)
    if not outcome.complete:
        raise SystemExit(f"the campaign was not completed: {outcome.chains[0].reason}")
    repository = Repository(store)
    return [split_time(times[key], repository.step(key).seconds) for key in tree.nodes]


def split_time(at: Mapping[str, float], seconds: Mapping[str, float]) -> dict[str, float]:
    """Split the time of one step.

    Args:
        at: When it was asked for, handed out, begun, done and ended; Unix seconds.
        seconds: The seconds that its record holds.

    Returns:
        Seconds by the names in RAY, OURS and STEP.
    """
    inside = sum(value for name, value in seconds.items() if name != "wait")
    return {
        "trial": at["began"] - at["handed"],
        **{name: seconds[name] for name in ("start", *STEP, "stop")},
        "return": at["ended"] - at["done"],
        "choose": at["handed"] - at["asked"],
        "store": at["done"] - at["began"] - inside,
    }


def ray_seconds(parts: Mapping[str, float]) -> float:
    """Return Ray's share of the time of one step."""
    return sum(parts[name] for name in RAY)


def _chain(steps: int) -> Chain:
    """Return a chain of digits that learns two classes, then one in each step."""
    few = Optimization(epochs=1, batch=4, encoder_lr=0.02, head_lr=0.02)
    groups = (("0", "1"), *((str(digit),) for digit in range(2, steps + 1)))
    return Chain(
        name="overhead",
        scenario=Scenario(dataset="digits", groups=groups, supervision="pixel", setting="overlap"),
        base=Base(optimization=few),
        method=fine_tuning.Config(),
        optimization=few,
        model=ModelConfig(encoder="tiny", output_stride=4, head_channels=4, eval_pooling=8),
        augmentation=Augmentation(crop=32),
        evaluation=EvaluationConfig(short_side=32, crop=32),
    )


def main() -> None:
    """Measure, and print a table and, with --json, one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=6, choices=range(2, 10), help="of the chain")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON document")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["STEPCHAIN_CACHE"] = f"{scratch}/cache"
        store = open_store(f"{scratch}/store")
        ingest(Digits(seed=1, train=100, val=10), store, "digits")
        first, *others = measure(store, options.steps)
    usual = {}
    for name in first:
        usual[name] = median(each[name] for each in others)
    print(f"Seconds of a step: the first, and the median of the {len(others)} after it")
    totals = {}
    for title, names in {"Ray": RAY, "ours": OURS, "the step": STEP}.items():
        totals[title] = sum(usual[name] for name in names)
        first_total = sum(first[name] for name in names)
        print(f"{title:>20}{first_total:>9.2f}{totals[title]:>9.2f}")
        for name in names:
            print(f"{name:>20}{first[name]:>9.2f}{usual[name]:>9.2f}")
    if options.json:
        warm = median(map(ray_seconds, others))
        sums = {"ray": totals["Ray"], "ours": totals["ours"], "ray_seconds_warm": warm}
        print(json.dumps({"first": first, "median": usual, **sums}))


if __name__ == "__main__":
    main()
