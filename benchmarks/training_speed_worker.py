"""Train one case of `benchmarks.training_speed` and report the CPU time of each round.

It runs in a process of its own, with the code of the tree on its path: today's or another one. It
trains by `training.fit` with images made up here, waits for a line before each round, and prints
the CPU seconds that the round took. Learning rates are 0, so that no case diverges.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.photos import Photos
from orchestrator.datasets.ingest import ingest
from orchestrator.datasets.stored_split import open_stored_split
from orchestrator.planning.fields import with_field
from orchestrator.planning.planner import plan_chain
from orchestrator.planning.resolver import PlannedStep
from orchestrator.store.open import open_store
from stepchain.presets import PRESETS
from training.curves import CurveRow
from training.data.digits import Digits
from training.data.shards import LocalSplit
from training.data.voc import VOC_CLASSES
from training.fit import fit
from training.journal import MemoryJournal
from training.runtime import Runtime

# Preset and index of the step.
CASES = {
    "digits WILSON": ("digits_wilson", 1),
    "digits MiB": ("digits_mib", 1),
    "VOC step 0": ("small_voc_wilson", 0),
    "VOC weak step": ("small_voc_wilson", 1),
}
# Cases that `benchmarks.peer` can train; digits have another encoder.
PUBLISHED = ("VOC step 0", "VOC weak step")
FOREVER = 1e5  # epochs


class VocPhotos(Photos):
    """Made-up photos with VOC's classes."""

    classes = VOC_CLASSES
    splits = ("train", "val")

    def ids(self, split: str) -> list[str]:
        """Return the names of the images; there is one for validation."""
        return super().ids(split) if split == "train" else ["999999"]


class Rounds(MemoryJournal):
    """Stops after each row of the curves until the driver asks for another round."""

    begun = 0.0

    def log(self, row: CurveRow) -> None:
        """Print the CPU time since the last call, then wait."""
        print(time.process_time() - self.begun, flush=True)
        if not sys.stdin.readline():
            raise SystemExit
        self.begun = time.process_time()


def plan_case(
    case: str, precision: str, folder: Path
) -> tuple[LocalSplit, tuple[PlannedStep, ...]]:
    """Return the made-up training images and the case's steps; the last is the one to measure."""
    preset, index = CASES[case]
    chain = PRESETS[preset]()
    changes: dict[str, Any] = {"augmentation.crop": chain.augmentation.crop}
    for part, epochs in (("base.", FOREVER if index == 0 else 1), ("", FOREVER)):
        optimization = {"epochs": epochs, "precision": precision, "encoder_lr": 0, "head_lr": 0}
        changes |= {f"{part}optimization.{name}": value for name, value in optimization.items()}
    if index and chain.method.name == "wilson":
        changes |= {"method.warmup_epochs": 0, "method.localizer_lr": 0}
    for path, value in changes.items():
        chain = with_field(chain, path, value)
    store = open_store(str(folder / "store"))
    source = Digits(train=200, val=1) if preset.startswith("digits") else VocPhotos(200)
    manifest = ingest(source, store, chain.scenario.dataset, where="here").manifest
    data = open_stored_split(store, manifest, "train", folder / "cache")
    return data, tuple(plan_chain(chain, store).steps[: index + 1])


def train(case: str, precision: str, iterations: int, folder: Path) -> None:
    """Train the case without end, in rounds of some iterations."""
    data, steps = plan_case(case, precision, folder)
    parent: Path | None = None
    for planned in steps:
        last = planned is steps[-1]
        parent = fit(
            planned.step,
            data,
            planned.rows,
            Runtime(log_every=iterations if last else 10**6, checkpoint_every=1e9),
            parent=parent,
            encoder_weights=None,
            folder=folder / planned.key,
            resume=None,
            journal=Rounds() if last else MemoryJournal(),
        )


def main() -> None:
    """Run the case that the arguments name: case, precision, iterations of a round."""
    torch.set_num_threads(1)
    case, precision, iterations = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        train(case, precision, int(iterations), Path(folder))


if __name__ == "__main__":
    main()
