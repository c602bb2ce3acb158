"""Compare the CPU time of a training iteration with that of another checkout's code.

    python -m benchmarks.training_speed --against ../other-checkout [--rounds 9] [--iterations 4]

Each case trains in one process per checkout and precision, with one thread. The processes take
turns, so what else the machine does falls on all alike. The time is that of the processor, user and
system, for decoding, augmentation and the whole iteration; the lower third of the rounds counts.
The other checkout may be any version that has `training.fit`, and installed packages are shared.
VOC's cases are also trained in float32 as the published code does (`benchmarks.peer`), on the same
images. A second table gives images per second.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks.training_speed_worker import CASES, PUBLISHED
from stepchain.presets import PRESETS

ROOT = Path(__file__).resolve().parent.parent
WORKER = ROOT / "benchmarks" / "training_speed_worker.py"
PEER = ROOT / "benchmarks" / "training_speed_peer.py"
TRANSCRIPTION = "transcription, float32"
PRECISIONS = ("float32", "bfloat16")


class Contestant(NamedTuple):
    """One checkout's process, which trains a round for each line that it is given."""

    name: str
    process: subprocess.Popen[str]

    def round(self) -> float:
        """Return the CPU seconds of one more round."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.report()

    def report(self) -> float:
        """Return the CPU seconds of the round that runs. Raise RuntimeError if it fails."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended early; its error is above")
        return float(line)


def start(
    name: str, tree: Path, script: Path, case: str, precision: str, iterations: int
) -> Contestant:
    """Start a checkout's process and wait for its first round, which does not count."""
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), case, precision, str(iterations)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, env=environment, cwd=tree, stdin=pipe, stdout=pipe, text=True
    )
    contestant = Contestant(name, process)
    contestant.report()
    return contestant


def compare(
    case: str, other: Path, rounds: int, iterations: int, precisions: tuple[str, ...]
) -> dict[str, float]:
    """Return the milliseconds of an iteration by contestant."""
    contestants = [start("before", other, WORKER, case, "float32", iterations)]
    contestants += [start(each, ROOT, WORKER, case, each, iterations) for each in precisions]
    if case in PUBLISHED:
        contestants.append(start(TRANSCRIPTION, ROOT, PEER, case, "float32", iterations))
    times: dict[str, list[float]] = {contestant.name: [] for contestant in contestants}
    try:
        for _ in range(rounds):
            for contestant in contestants:
                times[contestant.name].append(1000 * contestant.round() / iterations)
    finally:
        for contestant in contestants:
            contestant.process.kill()
            contestant.process.communicate()
    return {name: lower_third(values) for name, values in times.items()}


def lower_third(values: list[float]) -> float:
    """Return the value that a third of the values do not exceed."""
    return sorted(values)[(len(values) - 1) // 3]


def table_head(*names: str) -> str:
    """Return the first two lines of a Markdown table."""
    return f"| {' | '.join(names)} |\n|{'---|' * len(names)}"


def table_row(case: str, found: dict[str, float], precisions: tuple[str, ...]) -> str:
    """Return a row of the Markdown table: milliseconds, and how many times faster today's are."""
    before = found["before"]
    cells = [case, f"{before:.0f}"]
    for precision in precisions:
        value = found[precision]
        cells.append(f"{value:.0f} ({before / value:.2f} x)")
    return f"| {' | '.join(cells)} |"


def images_row(case: str, batch: int, found: dict[str, float], precisions: tuple[str, ...]) -> str:
    """Return a row of the second table: images per second, and how many times as many today's are.

    Args:
        case: The row's name.
        batch: Images of an iteration.
        found: Milliseconds of an iteration, by contestant.
        precisions: The contestants of today's code.
    """
    published = found[TRANSCRIPTION]
    cells = [case, f"{1000 * batch / published:.1f}"]
    for precision in precisions:
        value = found[precision]
        cells.append(f"{1000 * batch / value:.1f} ({published / value:.2f} x)")
    return f"| {' | '.join(cells)} |"


def batch_size(case: str) -> int:
    """Return how many images an iteration of the case has."""
    preset, index = CASES[case]
    chain = PRESETS[preset]()
    return (chain.optimization if index else chain.base.optimization).batch


def main() -> None:
    """Compare the cases that the arguments name, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    asked = parser.parse_args()
    precisions = tuple(asked.precisions)
    print(table_head("ms of an iteration", "before, float32", *precisions))
    images = []
    for case in asked.cases:
        other = asked.against.resolve()
        found = compare(case, other, asked.rounds, asked.iterations, precisions)
        print(table_row(case, found, precisions), flush=True)
        if case in PUBLISHED:
            images.append(images_row(case, batch_size(case), found, precisions))
    if images:
        print()
        print(table_head("images per second", TRANSCRIPTION, *precisions))
        print("\n".join(images))


if __name__ == "__main__":
    main()
