"""Publish a whole campaign without training anything."""

from pathlib import Path

import numpy as np

from orchestrator.datasets.catalog import publish
from orchestrator.planning.campaign import Campaign, campaign_with_current_recipes, sweep
from orchestrator.planning.campaign_record import publish_campaign
from orchestrator.planning.fields import with_field
from orchestrator.planning.planner import PlannedChain, Planner
from orchestrator.planning.resolver import PlannedStep
from orchestrator.records import layout
from orchestrator.records.publish import chain_record
from orchestrator.records.schema import EvaluationRecord, StepRecord
from orchestrator.store.base import Store
from orchestrator.store.canonical import canonical_json
from orchestrator.store.open import open_store
from stepchain.presets import digits_wilson
from tests.support import records
from tests.support.confusions import confusion_of_rows, counts_parquet
from tests.support.datasets import build_dataset
from training.data.digits import Digits

QUESTION = "How hard?\n\n    python -m jobs.campaign run hardness"


def publish_made_up_campaign(folder: Path) -> tuple[Campaign, Store]:
    """Publish six variants of two seeds each; return the campaign and the store in `folder`."""
    store = publish_digits(folder)
    start = with_field(digits_wilson(), "name", "hardness")
    axes = {"method.prior": ("bce", "fixed"), "method.alpha": (0, 0.5, 1), "seed": (1, 2)}
    campaign = campaign_with_current_recipes(Campaign("hardness", QUESTION, sweep(start, axes)))
    planner = Planner(store)
    for chain in campaign.chains:
        publish_made_up_chain(store, planner.plan(chain))
    publish_campaign(store, campaign)
    return campaign, store


def publish_digits(folder: Path) -> Store:
    """Publish a few digits to a new store in `folder`; return the store."""
    store = open_store(str(folder / "store"))
    manifest, _ = build_dataset(Digits(train=60, val=8), folder / "built")
    publish(store, "digits", folder / "built", manifest)
    return store


def publish_made_up_chain(store: Store, plan: PlannedChain) -> None:
    """Publish the steps of a chain, their evaluations and its record."""
    steps = []
    evaluations = []
    for planned in plan.steps:
        step, evaluation = publish_made_up_step(store, plan, planned)
        steps.append(step)
        evaluations.append(evaluation)
    record = chain_record(plan.chain, steps, evaluations)
    record = record.model_copy(update={"created": "2026-01-02T03:05:06Z"})
    store.write(layout.chain_record(record.key), canonical_json(record))


def publish_made_up_step(
    store: Store, plan: PlannedChain, planned: PlannedStep
) -> tuple[StepRecord, EvaluationRecord]:
    """Publish a step whose scores depend on the axes of the campaign."""
    return records.publish_step(store, plan, planned, _counts(plan, planned), _curves())


def _curves() -> list[dict[str, float]]:
    rows = []
    for iteration in (10, 20, 30):
        time = 1.7e9 + iteration
        row = {"iteration": iteration, "total": 30, "time": time}
        rows.append(row | {"loss": 1 / iteration, "lr/head": 0.1})
    return rows


def _counts(plan: PlannedChain, planned: PlannedStep) -> bytes:
    """Return counts in which the axes of the campaign matter.

    Old classes suffer from a hard alpha and a learned prior, new classes from a fixed prior.
    """
    rng = np.random.default_rng([plan.chain.seed, int(planned.key, 16) % 1000])
    task = planned.step.task
    rows = [(0, 0, 0, 5000)]
    for class_id in range(1, 11):
        share = _share(plan, planned, class_id) + rng.normal(0, 0.02)
        known = class_id in task.classes
        kept = round(1000 * share) if known else 0
        taken = (1000 - kept) // 3 if known and planned.index else 0
        shares = ((class_id, kept), (task.new_classes[-1], taken), (0, 1000 - kept - taken))
        rows += [(0, class_id, predicted, pixels) for predicted, pixels in shares if pixels]
    return counts_parquet(confusion_of_rows(rows))


def _share(plan: PlannedChain, planned: PlannedStep, class_id: int) -> float:
    """Return the share of a class's pixels that the step predicts right, but for noise."""
    method = plan.chain.method
    old = class_id in planned.step.task.previous_classes
    share = 0.85 - 0.02 * class_id
    if planned.index:
        share -= 0.25 * (getattr(method, "alpha", 0) - 0.4) ** 2 if old else 0.1
        fixed = getattr(method, "prior", "") == "fixed"
        share -= 0.08 * (fixed != old)
    return share
