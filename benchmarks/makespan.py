"""How well the real scheduler fills GPUs: 1,000 random campaigns on 1 to 256 of them. `python benchmarks/makespan.py [--json]`.

Each campaign is a random tree of steps (`campaign`, seeded), with one GPU for each step, handed out by
`orchestrator.campaigns.priority.Schedule`, the code that hands out real ones. No campaign can end before its longest path
does, nor before its work is shared evenly by all GPUs; the larger of the two is the bound that every makespan is divided by.

Compared with the same schedule where a GPU keeps all the steps of a segment (why steps are handed out one by one), and with two
ways in which people schedule such campaigns today, under the same order of priority: in waves, where step t + 1 begins when
step t of every chain is done; and one trial a chain, once as it is without a cache (each chain trains its prefix itself)
and once with one (the first to come trains, and the others wait for it and hold their GPUs while they do).
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

from orchestrator.campaigns.priority import Job, Schedule

GPUS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Campaign:
    """A random campaign: its steps as a tree, and the chains that want them."""

    parents: dict[str, str | None]  # of each step, parents first
    seconds: dict[str, float]
    chains: tuple[tuple[str, ...], ...]  # keys of each chain's steps

    @property
    def critical(self) -> float:
        """Seconds of the longest chain."""
        return max(sum(self.seconds[key] for key in chain) for chain in self.chains)

    @property
    def work(self) -> float:
        return sum(self.seconds.values())

    def bound(self, gpus: int) -> float:
        """No schedule ends before this."""
        return max(self.critical, self.work / gpus)

    def segments(self) -> dict[str, tuple[str, ...]]:
        """Runs of steps without a branch in between, by the key of the last one."""
        children = Counter(parent for parent in self.parents.values() if parent)
        runs: dict[str, tuple[str, ...]] = {}
        for key, parent in self.parents.items():
            runs[key] = (*runs.pop(parent), key) if parent and children[parent] == 1 else (key,)
        return runs


def campaign(seed: int) -> Campaign:
    """1 to 120 chains of 2 to 11 steps (15-5 has two, 10-1 eleven) that split where the values of an axis begin to matter.

    An axis (seed, setting, base, method, alpha ...) has 1 to 6 values and matters from step 0 or from step 1 on, now and then
    (a memory, a last group) from a later one. Step 0 takes one to three times as long as the others; how long a step
    takes varies with the method by up to a factor of three, and by some per cent from run to run.
    """
    draw = random.Random(seed)
    length = draw.choice((2, 2, 3, 4, 6, 6, 11))
    axes: list[tuple[int, int]] = []  # how many values, and from which step on they matter
    chains = 1
    while chains < 120 and (not axes or draw.random() < 0.7):
        values = min(draw.randint(1, 6), 120 // chains)
        chains *= values
        axes.append((values, draw.choice((0, 1, 1, 1, 1, draw.randrange(length)))))
    usual, first, spread = draw.uniform(600, 7200), draw.uniform(1, 3), draw.uniform(1, 3)
    pace: dict[str, float] = defaultdict(lambda: draw.uniform(1, spread))
    parents: dict[str, str | None] = {}
    seconds: dict[str, float] = {}
    asked: list[tuple[str, ...]] = []
    for number in range(chains):
        choice, rest = [], number
        for values, begins in axes:
            choice.append((rest % values, begins))
            rest //= values
        keys: list[str] = []
        for step in range(length):
            variant = ".".join(str(value) if begins <= step else "-" for value, begins in choice)
            key = f"{keys[-1]}/{variant}" if keys else variant
            if key not in parents:
                parents[key] = keys[-1] if keys else None
                seconds[key] = (
                    usual * (first if step == 0 else 1.0) * pace[variant] * draw.uniform(0.95, 1.05)
                )
            keys.append(key)
        asked.append(tuple(keys))
    return Campaign(parents, seconds, tuple(asked))


def ours(campaign: Campaign, gpus: int) -> float:
    """Makespan under the real schedule, step by step as a campaign runs."""
    return _scheduled(
        [Job(key, parent, campaign.seconds[key]) for key, parent in campaign.parents.items()], gpus
    )


def by_segment(campaign: Campaign, gpus: int) -> float:
    """Makespan when a GPU keeps a whole run of steps without a branch, though something more urgent may be ready in between."""
    runs = campaign.segments()
    return _scheduled(
        [
            Job(key, campaign.parents[run[0]], sum(campaign.seconds[step] for step in run))
            for key, run in runs.items()
        ],
        gpus,
    )


def _scheduled(jobs: list[Job], gpus: int) -> float:
    """Makespan under the real schedule. Asserts that no GPU is idle while a job is ready, and that none starts too early."""
    schedule, now, ends = Schedule(jobs), 0.0, list[tuple[float, str]]()
    while not schedule.finished:
        while len(ends) < gpus and (key := next(schedule.ready(), None)) is not None:
            assert schedule.jobs[key].parent is None or schedule.jobs[key].parent in schedule.done
            schedule.start(key)
            heappush(ends, (now + schedule.jobs[key].seconds, key))
        assert len(ends) == gpus or next(schedule.ready(), None) is None, (
            "a GPU is idle while a step is ready"
        )
        now, key = heappop(ends)
        schedule.finish(key)
    return now


def waves(campaign: Campaign, gpus: int) -> float:
    """Makespan when all chains finish a step before any begins the next."""
    levels: dict[int, list[float]] = defaultdict(list)
    for key, seconds in campaign.seconds.items():
        levels[key.count("/")].append(seconds)
    return sum(_packed(level, gpus) for level in levels.values())


def alone(campaign: Campaign, gpus: int) -> float:
    """Makespan when each chain is a trial that trains all its steps itself."""
    return _packed([sum(campaign.seconds[key] for key in chain) for chain in campaign.chains], gpus)


def waiting(campaign: Campaign, gpus: int) -> float:
    """Makespan when each chain is a trial, and takes from a cache what others have trained, or waits for it on its GPU."""
    longest = sorted(
        campaign.chains, key=lambda chain: -sum(campaign.seconds[key] for key in chain)
    )
    published: dict[str, float] = {}  # when each step is, or will be
    # A GPU comes to the end of its chain's last step (time, chain, next step): what it does then.
    events = [(0.0, chain, 0) for chain in range(min(gpus, len(longest)))]
    following, now = len(events), 0.0
    while events:
        now, chain, step = heappop(events)
        if step < len(longest[chain]):
            key = longest[chain][step]
            published.setdefault(key, now + campaign.seconds[key])
            heappush(events, (max(now, published[key]), chain, step + 1))
        elif following < len(longest):
            heappush(events, (now, following, 0))
            following += 1
    return now


def _packed(jobs: list[float], gpus: int) -> float:
    """Makespan of independent jobs, the longest first."""
    ends = [0.0] * gpus
    for seconds in sorted(jobs, reverse=True):
        heappush(ends, heappop(ends) + seconds)
    return max(ends)


WAYS: dict[str, Callable[[Campaign, int], float]] = {
    "stepchain": ours,
    "the same, by segment": by_segment,
    "waves": waves,
    "a trial a chain, waiting": waiting,
    "a trial a chain, alone": alone,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--campaigns", type=int, default=1000)
    parser.add_argument("--json", action="store_true", help="the last line is one JSON document")
    options = parser.parse_args()
    began = time.perf_counter()
    ratios: dict[str, list[tuple[int, bool, float]]] = {
        way: [] for way in WAYS
    }  # GPUs, are they contended, makespan / bound
    for seed in range(options.campaigns):
        random_campaign = campaign(seed)
        for gpus in GPUS:
            contended = 1 < gpus < len(random_campaign.segments())
            for way, makespan in WAYS.items():
                ratios[way].append(
                    (gpus, contended, makespan(random_campaign, gpus) / random_campaign.bound(gpus))
                )
    found = {way: summary(values) for way, values in ratios.items()}
    print(
        f"Makespan / max(longest chain, work / GPUs) of {options.campaigns} random campaigns, median:"
    )
    print(
        f"{'GPUs':>25}"
        + "".join(f"{gpus:>7}" for gpus in GPUS)
        + f"{'all':>7}{'within 5 %':>12}{'contended':>11}{'worst':>7}"
    )
    for way, values in found.items():
        row = "".join(f"{value:>7.3f}" for value in values["median_by_gpus"].values())
        print(
            f"{way:>25}{row}{values['median']:>7.3f}{values['within_5_percent']:>12.0%}"
            f"{values['median_contended']:>11.3f}{values['worst']:>7.2f}"
        )
    print(
        "Contended: more than one GPU, and fewer than there are segments. No GPU was idle while a step was ready."
    )
    print(f"{time.perf_counter() - began:.0f} s")
    if options.json:
        print(
            json.dumps(
                {"campaigns": options.campaigns, "gpus": GPUS, "idle_while_ready": 0, "ways": found}
            )
        )


def summary(values: list[tuple[int, bool, float]]) -> dict:
    """Medians of makespan / bound, the share within 5 % of the bound, and the worst."""
    every = [ratio for _, _, ratio in values]
    return {
        "median": median(every),
        "median_by_gpus": {
            gpus: median(ratio for count, _, ratio in values if count == gpus) for gpus in GPUS
        },
        "median_contended": median(ratio for _, contended, ratio in values if contended),
        "within_5_percent": sum(ratio <= 1.05 for ratio in every) / len(every),
        "within_5_percent_contended": sum(
            ratio <= 1.05 for _, contended, ratio in values if contended
        )
        / sum(contended for _, contended, _ in values),
        "worst": max(every),
    }


if __name__ == "__main__":
    main()
