"""Measure how well the scheduler fills GPUs, on 1,000 random campaigns and 1 to 256 GPUs.

    python -m benchmarks.makespan [--campaigns 1000] [--json]

Nothing is trained. The program simulates `orchestrator.campaigns.priority.Schedule`, which also
orders the steps of real campaigns. Each campaign is a seeded random tree of steps (see `campaign`),
and each step takes one GPU.

The result is a ratio: the makespan divided by its lower bound. No campaign can end before its
longest chain does, nor before its work is shared evenly by all GPUs. The bound is the larger one.

Four other ways to schedule are measured under the same order of priority:

* by segment: a GPU keeps all the steps of a run without a branch;
* waves: step t + 1 begins when step t of every chain is done;
* a trial a chain, alone: each chain trains all of its steps itself, without a cache;
* a trial a chain, waiting: the first chain to need a step trains it, and the others hold their GPUs
  while they wait for it.

The command prints the medians of the ratio for each number of GPUs, the share of the campaigns
within 5 % of the bound, and the worst ratio. With `--json` the last line is one JSON document.
"""

import argparse
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from statistics import median
from typing import Any, NamedTuple

from orchestrator.campaigns.priority import Job, Schedule

GPUS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Campaign:
    """A random campaign: its steps as a tree, and the chains that consist of them."""

    parents: dict[str, str | None]  # of each step, parents first
    seconds: dict[str, float]
    chains: tuple[tuple[str, ...], ...]  # keys of each chain's steps

    def chain_seconds(self, chain: tuple[str, ...]) -> float:
        """Return the time that the steps of a chain take one after another."""
        return sum(self.seconds[key] for key in chain)

    @property
    def critical(self) -> float:
        """Return the seconds of the longest chain."""
        return max(self.chain_seconds(chain) for chain in self.chains)

    @property
    def work(self) -> float:
        """Return the seconds of all steps."""
        return sum(self.seconds.values())

    def bound(self, gpus: int) -> float:
        """Return a time before which no schedule can end."""
        return max(self.critical, self.work / gpus)

    def segments(self) -> dict[str, tuple[str, ...]]:
        """Return the runs of steps without a branch in between, by the key of their last step."""
        children = Counter(parent for parent in self.parents.values() if parent)
        runs: dict[str, tuple[str, ...]] = {}
        for key, parent in self.parents.items():
            runs[key] = (*runs.pop(parent), key) if parent and children[parent] == 1 else (key,)
        return runs


def campaign(seed: int) -> Campaign:
    """Draw a campaign of 1 to 120 chains with 2 to 11 steps each.

    Two steps are those of 15-5, and eleven those of 10-1. The chains differ in the values of some
    axes (seed, setting, base, method, alpha ...), and split at the step from which an axis matters.
    An axis has 1 to 6 values. It matters from step 0 or 1 on, and sometimes, like a memory or a
    last group, from a later one.

    Step 0 takes one to three times as long as the others. The time of a step varies with the
    method by up to a factor of three, and by some per cent from run to run.
    """
    draw = random.Random(seed)
    length = draw.choice((2, 2, 3, 4, 6, 6, 11))
    axes: list[tuple[int, int]] = []  # how many values, and from which step on they matter
    chain_count = 1
    while chain_count < 120 and (not axes or draw.random() < 0.7):
        values = min(draw.randint(1, 6), 120 // chain_count)
        chain_count *= values
        axes.append((values, draw.choice((0, 1, 1, 1, 1, draw.randrange(length)))))
    usual = draw.uniform(600, 7200)
    first = draw.uniform(1, 3)
    range_of_paces = draw.uniform(1, 3)
    pace: dict[str, float] = defaultdict(lambda: draw.uniform(1, range_of_paces))
    parents: dict[str, str | None] = {}
    seconds: dict[str, float] = {}
    chains: list[tuple[str, ...]] = []
    for number in range(chain_count):
        choice = []
        rest = number
        for values, begins in axes:
            choice.append((rest % values, begins))
            rest //= values
        keys: list[str] = []
        for step in range(length):
            variant = ".".join(str(value) if begins <= step else "-" for value, begins in choice)
            key = f"{keys[-1]}/{variant}" if keys else variant
            if key not in parents:
                parents[key] = keys[-1] if keys else None
                length_of_step = usual * (first if step == 0 else 1.0)
                seconds[key] = length_of_step * pace[variant] * draw.uniform(0.95, 1.05)
            keys.append(key)
        chains.append(tuple(keys))
    return Campaign(parents, seconds, tuple(chains))


def by_step(campaign: Campaign, gpus: int) -> float:
    """Return the makespan under the real schedule, step by step as a campaign runs."""
    parents = campaign.parents.items()
    return _scheduled([Job(key, parent, campaign.seconds[key]) for key, parent in parents], gpus)


def by_segment(campaign: Campaign, gpus: int) -> float:
    """Return the makespan when a GPU keeps a whole run of steps without a branch.

    It keeps them even if a more urgent step becomes ready in between.
    """
    jobs = []
    for key, run in campaign.segments().items():
        jobs.append(Job(key, campaign.parents[run[0]], campaign.chain_seconds(run)))
    return _scheduled(jobs, gpus)


def _scheduled(jobs: list[Job], gpus: int) -> float:
    """Return the makespan of some jobs under the real schedule.

    Asserts that no GPU is idle while a job is ready, and that no job starts before its parent ends.
    """
    schedule = Schedule(jobs)
    now = 0.0
    ends: list[tuple[float, str]] = []
    while not schedule.finished:
        while len(ends) < gpus and (key := next(schedule.ready(), None)) is not None:
            assert schedule.jobs[key].parent is None or schedule.jobs[key].parent in schedule.done
            schedule.start(key)
            heappush(ends, (now + schedule.jobs[key].seconds, key))
        all_busy = len(ends) == gpus
        assert all_busy or next(schedule.ready(), None) is None, "a GPU is idle, a step is ready"
        now, key = heappop(ends)
        schedule.finish(key)
    return now


def waves(campaign: Campaign, gpus: int) -> float:
    """Return the makespan when all chains finish a step before any begins the next."""
    levels: dict[int, list[float]] = defaultdict(list)
    for key, seconds in campaign.seconds.items():
        levels[key.count("/")].append(seconds)
    return sum(_packed(level, gpus) for level in levels.values())


def alone(campaign: Campaign, gpus: int) -> float:
    """Return the makespan when each chain is a trial that trains all its steps itself."""
    return _packed([campaign.chain_seconds(chain) for chain in campaign.chains], gpus)


def waiting(campaign: Campaign, gpus: int) -> float:
    """Return the makespan when each chain is a trial with a cache of published steps.

    A trial takes from the cache what others have trained. It waits on its GPU for what another
    trial is training.
    """
    longest = sorted(campaign.chains, key=campaign.chain_seconds, reverse=True)
    published: dict[str, float] = {}  # when each step is, or will be
    # An event (time, chain, next step) is a GPU that comes to the end of its chain's last step.
    events = [(0.0, chain, 0) for chain in range(min(gpus, len(longest)))]
    next_chain = len(events)
    now = 0.0
    while events:
        now, chain, step = heappop(events)
        if step < len(longest[chain]):
            key = longest[chain][step]
            published.setdefault(key, now + campaign.seconds[key])
            heappush(events, (max(now, published[key]), chain, step + 1))
        elif next_chain < len(longest):
            heappush(events, (now, next_chain, 0))
            next_chain += 1
    return now


def _packed(jobs: list[float], gpus: int) -> float:
    """Return the makespan of independent jobs that start in order of their length."""
    ends = [0.0] * gpus
    for seconds in sorted(jobs, reverse=True):
        heappush(ends, heappop(ends) + seconds)
    return max(ends)


WAYS: dict[str, Callable[[Campaign, int], float]] = {
    "stepchain": by_step,
    "the same, by segment": by_segment,
    "waves": waves,
    "a trial a chain, waiting": waiting,
    "a trial a chain, alone": alone,
}


class Ratio(NamedTuple):
    """The makespan of one campaign divided by its bound."""

    gpus: int
    contended: bool  # whether there are more segments than GPUs, and more GPUs than one
    value: float


def main() -> None:
    """Simulate, and print a table and, with --json, one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--campaigns", type=int, default=1000, help="random campaigns")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON document")
    options = parser.parse_args()
    began = time.perf_counter()
    ratios = measure(options.campaigns)
    found = {way: summarize(values) for way, values in ratios.items()}
    bound = "max(longest chain, work / GPUs)"
    print(f"Makespan / {bound} of {options.campaigns} random campaigns, median:")
    columns = "".join(f"{gpus:>7}" for gpus in GPUS)
    print(f"{'GPUs':>25}{columns}{'all':>7}{'within 5 %':>12}{'contended':>11}{'worst':>7}")
    for way, values in found.items():
        row = "".join(f"{value:>7.3f}" for value in values["median_by_gpus"].values())
        print(
            f"{way:>25}{row}{values['median']:>7.3f}{values['within_5_percent']:>12.0%}"
            f"{values['median_contended']:>11.3f}{values['worst']:>7.2f}"
        )
    print("Contended: more than one GPU, and fewer than there are segments.")
    print("No GPU was idle while a step was ready.")
    print(f"{time.perf_counter() - began:.0f} s")
    if options.json:
        result = {"campaigns": options.campaigns, "gpus": GPUS, "idle_while_ready": 0}
        print(json.dumps(result | {"ways": found}))


def measure(campaigns: int) -> dict[str, list[Ratio]]:
    """Return the ratios of some random campaigns on every number of GPUs, by way to schedule."""
    ratios: dict[str, list[Ratio]] = {way: [] for way in WAYS}
    for seed in range(campaigns):
        drawn = campaign(seed)
        segments = len(drawn.segments())
        for gpus in GPUS:
            for way, makespan in WAYS.items():
                value = makespan(drawn, gpus) / drawn.bound(gpus)
                ratios[way].append(Ratio(gpus, 1 < gpus < segments, value))
    return ratios


def summarize(ratios: list[Ratio]) -> dict[str, Any]:
    """Return medians of the ratios, the share within 5 % of the bound, and the worst."""
    values = [ratio.value for ratio in ratios]
    contended = [ratio.value for ratio in ratios if ratio.contended]
    by_gpus = {}
    for gpus in GPUS:
        by_gpus[gpus] = median(ratio.value for ratio in ratios if ratio.gpus == gpus)
    return {
        "median": median(values),
        "median_by_gpus": by_gpus,
        "median_contended": median(contended),
        "within_5_percent": _share_within_5_percent(values),
        "within_5_percent_contended": _share_within_5_percent(contended),
        "worst": max(values),
    }


def _share_within_5_percent(values: list[float]) -> float:
    return sum(value <= 1.05 for value in values) / len(values)


if __name__ == "__main__":
    main()
