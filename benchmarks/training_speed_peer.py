"""Train one case of `benchmarks.training_speed` as the published code does (`benchmarks.peer`).

It reports as `benchmarks.training_speed_worker` does. Images, augmentation and labels are the same;
the iteration is the transcription's.
"""

import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.peer import Peer
from benchmarks.training_speed_worker import Rounds, plan_case
from training.batches import step_batches
from training.runtime import Runtime

FOREVER = 10**9  # iterations


def train(case: str, precision: str, iterations: int, folder: Path) -> None:
    """Train the case without end, in rounds of some iterations."""
    data, steps = plan_case(case, precision, folder)
    planned = steps[-1]
    torch.manual_seed(0)
    peer = Peer(planned.step)
    rounds = Rounds()
    batches = step_batches(planned.step, data, planned.rows, Runtime(), 0, FOREVER)
    for done, batch in enumerate(batches, start=1):
        labels = batch.image_labels if batch.targets is None else batch.targets
        peer.iterate(batch.images, labels)
        if done % iterations == 0:
            rounds.log({})


def main() -> None:
    """Run the case that the arguments name: case, precision, iterations of a round."""
    torch.set_num_threads(1)
    case, precision, iterations = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        train(case, precision, int(iterations), Path(folder))


if __name__ == "__main__":
    main()
