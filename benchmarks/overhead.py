"""What a step costs besides fetching, training and scoring, measured: `python benchmarks/overhead.py [--steps N] [--json]`.

Runs a chain of tiny steps as a campaign on this machine's own Ray, one step after another, and splits the time between them.
Ray: hands a trial to its process, starts the step's workers, stops them, and says so. Ours: the desk's choice, the lease, the
records, the evaluation's file, checkpoints that go. Both are the same for a step that trains for hours. The first step is told
apart, since the trial's process is started for it.
"""

import argparse
import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
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


class Watched:
    """A desk that notes when what was asked for and said; all times are Unix seconds of this machine."""

    def __init__(self, desk: Scheduler, times: dict[str, dict[str, float]]) -> None:
        self.desk, self.times = desk, times

    @property
    def finished(self) -> bool:
        return self.desk.finished

    def next(self) -> str | None:
        asked = time.time()
        id = self.desk.next()
        if id:
            self.times[id] |= {"asked": asked, "handed": time.time()}
        return id

    def on_message(self, id: str, message: Message) -> None:
        if isinstance(message, Notice) and message.text.startswith(MARK):
            self.times[id] |= json.loads(message.text.removeprefix(MARK))
        else:
            self.desk.on_message(id, message)

    def on_end(self, id: str, lost: bool) -> None:
        self.times[id]["ended"] = time.time()
        self.desk.on_end(id, lost)

    def stop(self) -> None:
        self.desk.stop()

    @property
    def idle(self) -> bool:
        return self.desk.idle

    def on_stopped(self) -> None:
        self.desk.on_stopped()


def timed(part: TrialSpec, on_message: OnMessage) -> None:
    """A trial that tells when it began and ended."""
    began = time.time()
    run_trial(part, on_message)
    on_message(Notice(MARK + json.dumps({"began": began, "done": time.time()})))


def measure(store: Store, steps: int) -> list[dict[str, float]]:
    """Seconds of each step's parts, in order."""
    grown = build_tree([Planner(store).plan(_chain(steps))])
    times: dict[str, dict[str, float]] = defaultdict(dict)

    def run(desk: Scheduler, work: object, parts: Mapping[str, TrialSpec], **options: Any) -> None:
        ray_tune.run(Watched(desk, times), timed, parts, **options)

    place = RunContext(store, Request(cpus_per_worker=1), Console(quiet=True))
    outcome = run_campaign("overhead", grown, look_up_steps(grown, store), place, Costs(), run_trials=run)
    if not outcome.complete:
        raise SystemExit(f"the campaign was not completed: {outcome.chains[0].reason}")
    found = []
    for key in grown.nodes:
        at, seconds = times[key], Repository(store).step(key).seconds
        inside = sum(value for name, value in seconds.items() if name != "wait")
        found.append(
            {
                "trial": at["began"] - at["handed"],
                **{name: seconds[name] for name in ("start", *STEP, "stop")},
                "return": at["ended"] - at["done"],
                "choose": at["handed"] - at["asked"],
                "store": at["done"] - at["began"] - inside,
            }
        )
    return found


def _chain(steps: int) -> Chain:
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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=6, choices=range(2, 10))
    parser.add_argument("--json", action="store_true", help="the last line is one JSON document")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["STEPCHAIN_CACHE"] = f"{scratch}/cache"
        store = open_store(f"{scratch}/store")
        ingest(Digits(seed=1, train=100, val=10), store, "digits")
        first, *others = measure(store, options.steps)
    usual = {name: median(each[name] for each in others) for name in first}
    print(f"Seconds of a step: the first, and the median of the {len(others)} after it")
    for title, names in {"Ray": RAY, "ours": OURS, "the step": STEP}.items():
        print(
            f"{title:>20}{sum(first[name] for name in names):>9.2f}{sum(usual[name] for name in names):>9.2f}"
        )
        for name in names:
            print(f"{name:>20}{first[name]:>9.2f}{usual[name]:>9.2f}")
    if options.json:
        total = {"ray": sum(usual[name] for name in RAY), "ours": sum(usual[name] for name in OURS)}
        print(json.dumps({"first": first, "median": usual, **total}))


if __name__ == "__main__":
    main()
