"""Fill a store with a made-up campaign of any size: real records, real keys, tiny files.

    python -m benchmarks.made_up_store FOLDER [--chains 1000]

Everything is written by the functions that write it when steps are trained, so it lies where they
put it; only weights, curves and confusion counts are invented. Each chain has six steps over the
digits. The five seeds of a variant share nothing, and all variants of a seed share step 0, so 1,000
chains have 5,005 steps. A step leaves 19 objects, and every fourth step has the leftovers of an
attempt that came second: 1,000 chains are about 100,000 objects. Another 5 % of the chains are not
finished: their fourth increment failed, and the fifth waits for it.
"""

import argparse
import json
import os
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from unittest import mock

import numpy as np

from benchmarks.counts import counts_parquet
from benchmarks.made_up_campaign import GROUPS, made_up_campaign
from orchestrator.datasets.ingest import ingest
from orchestrator.planning.campaign import (
    Campaign,
    campaign_with_current_recipes,
)
from orchestrator.planning.campaign_record import publish_campaign
from orchestrator.planning.planner import SPLIT, PlannedChain, Planner
from orchestrator.planning.resolver import PlannedStep
from orchestrator.records import layout
from orchestrator.records.attempts import save_checkpoint, upload_folder, write_curves
from orchestrator.records.provenance import provenance
from orchestrator.records.publish import (
    publish_chain,
    publish_evaluation,
    publish_step,
    write_request,
)
from orchestrator.records.schema import EvaluationRecord, StepRecord
from orchestrator.records.store_version import prepare_store
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from training.data.digits import Digits

ATTEMPT, SECOND = "20260102T030405-00000001", "20260102T030405-00000002"
PIECES = 12  # of the curves
WRITERS = 8  # threads


class Published(NamedTuple):
    """A step and its evaluation."""

    step: StepRecord
    evaluation: EvaluationRecord


def fill(store: Store, chains: int) -> Campaign:
    """Publish the made-up campaign and its dataset, and return the campaign."""
    prepare_store(store)
    ingest(Digits(seed=1, train=300, val=10), store, "digits")
    campaign = campaign_with_current_recipes(made_up_campaign(chains))
    planner = Planner(store)
    plans = [planner.plan(chain) for chain in campaign.chains]
    last = len(GROUPS) - 1
    done: dict[str, Published] = {}
    by_index: defaultdict[int, dict[str, tuple[PlannedChain, PlannedStep]]] = defaultdict(dict)
    for number, plan in enumerate(plans):
        finished = number < chains
        for planned in plan.steps[: last + 1 if finished else last - 1]:
            by_index[planned.index][planned.key] = plan, planned
    with ThreadPoolExecutor(WRITERS) as writers:
        for index in sorted(by_index):  # parents first
            write = partial(_publish_step, store, done=dict(done))
            for found in writers.map(write, *zip(*by_index[index].values(), strict=True)):
                done[found.step.key] = found
        for plan in plans[:chains]:
            writers.submit(_publish_chain, store, plan, done)
        for plan in plans[chains:]:
            writers.submit(_fail, store, plan.steps[last - 1])
    publish_campaign(store, campaign)
    return campaign


def _publish_step(
    store: Store, plan: PlannedChain, planned: PlannedStep, done: dict[str, Published]
) -> Published:
    """Write everything that an attempt at a step leaves, and its records."""
    key = planned.key
    write_request(store, key, planned.title, planned.step, planned.index, planned.parent)
    if int(key, 16) % 4 == 0:
        _leave_second(store, key)
    rows = _curves()
    _write_attempt(store, key, ATTEMPT, rows, PIECES)
    with TemporaryDirectory() as folder:
        Path(folder, layout.MODEL_FILE).write_bytes(f"weights of {key}".encode())
        Path(folder, layout.CURVES_FILE).write_text(json.dumps(rows))
        files = upload_folder(store, Path(folder), layout.files_folder(key, ATTEMPT))
    evaluation = publish_evaluation(
        store, key, ATTEMPT, plan.source(SPLIT), plan.scoring, _counts(plan, planned), "cpu"
    )
    record = StepRecord(
        key=key,
        step=planned.step,
        index=planned.index,
        parent=planned.parent,
        parent_attempt=done[planned.parent].step.attempt if planned.parent else None,
        attempt=ATTEMPT,
        files=files,
        class_names=planned.class_names,
        data=plan.source("train"),
        iterations=planned.iterations,
        seconds={"wait": 0.1, "start": 0.2, "train": 40, "evaluate": 3, "stop": 0.1},
        images_per_second=300,
        resources={"workers": 1},
        provenance=provenance("cpu"),
    )
    return Published(publish_step(store, record), evaluation)


def _publish_chain(store: Store, plan: PlannedChain, done: dict[str, Published]) -> None:
    found = [done[planned.key] for planned in plan.steps]
    publish_chain(
        store, plan.chain, [each.step for each in found], [each.evaluation for each in found]
    )


def _fail(store: Store, planned: PlannedStep) -> None:
    """Write what a failed attempt at a step leaves."""
    key = planned.key
    write_request(store, key, planned.title, planned.step, planned.index, planned.parent)
    _write_attempt(store, key, ATTEMPT, _curves(), 1)
    store.write(layout.error(key, ATTEMPT), b"RuntimeError: made up")


def _leave_second(store: Store, key: str) -> None:
    """Write what an attempt leaves that came second to the published one."""
    _write_attempt(store, key, SECOND, _curves()[:1], 1)
    with TemporaryDirectory() as folder:
        Path(folder, layout.MODEL_FILE).write_bytes(b"half-trained weights")
        save_checkpoint(store, key, SECOND, Path(folder), 10)


def _write_attempt(
    store: Store, key: str, attempt: str, rows: list[dict[str, float]], pieces: int
) -> None:
    share = max(1, len(rows) // pieces)
    for number in range(pieces):
        write_curves(store, key, attempt, rows[number * share : (number + 1) * share])
    progress = {"stage": "train", **rows[-1]}
    store.write(layout.progress(key, attempt), json.dumps(progress).encode())


def _curves() -> list[dict[str, float]]:
    rows = []
    for iteration in range(10, 370, 10):
        row = {"iteration": iteration, "total": 360, "time": 1.7e9 + iteration}
        rows.append(row | {"images_per_second": 300.0, "loss": 1 / iteration, "lr/head": 0.1})
    return rows


def _counts(plan: PlannedChain, planned: PlannedStep) -> bytes:
    """Return confusion counts, as Parquet, in which each class keeps a share of its own."""
    rng = np.random.default_rng([plan.chain.seed, int(planned.key, 16) % 100_000])
    rows = [(0, 0, 0, 5000)]
    for class_id in range(1, 11):
        known = class_id in planned.step.task.classes
        kept = int(rng.integers(400, 900)) if known else 0
        shares = ((class_id, kept), (0, 1000 - kept))
        rows += [(0, class_id, predicted, pixels) for predicted, pixels in shares if pixels]
    return counts_parquet(rows)


def main() -> None:
    """Fill the store, and print how many objects it holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", help="a folder; it is made")
    parser.add_argument("--chains", type=int, default=1000, help="a multiple of 5")
    options = parser.parse_args()
    store = open_store(options.store)
    began = time.monotonic()
    # A made-up store need not survive a power failure, and 100,000 waits for the disk take long.
    with mock.patch.object(os, "fsync"):
        fill(store, options.chains)
    objects = sum(1 for _ in store.list())
    print(f"{objects:,} objects in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
