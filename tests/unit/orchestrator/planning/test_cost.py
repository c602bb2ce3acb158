"""Test cost estimates: from past records of the same kind, then from a guess, else None."""

from typing import Any

import numpy as np
import pytest

from orchestrator.cluster.resources import Request
from orchestrator.planning.chain import Chain
from orchestrator.planning.cost import estimate_cost, images, measure, past_records
from orchestrator.planning.planner import PlannedChain
from orchestrator.planning.resolver import PlannedStep
from orchestrator.planning.step_tree import StepTree, build_tree
from orchestrator.planning.store_state import StepState, StoredStep
from orchestrator.records.schema import DataSource, Provenance, StepRecord
from orchestrator.store.base import Store
from stepchain.presets import digits_wilson
from training.config import MethodConfig, Task
from training.data.manifest import Manifest
from training.methods import lwf, mib
from training.step_config import StepConfig

NOWHERE = Provenance(
    commit=None,
    dirty=None,
    versions={},
    user="ada",
    host="node",
    device="cpu",
    created="2026-01-02T03:04:05Z",
)


def planned(
    key: str, parent: str | None, method: MethodConfig | None = None, weights: str | None = None
) -> PlannedStep:
    """Return a step that reads 160 images ten times."""
    chain = digits_wilson()
    first = parent is None
    step = StepConfig(
        task=Task(
            data="d",
            groups=((1,),) if first else ((1,), (2,)),
            selection="s",
            images=160,
            supervision="pixel",
        ),
        method=method or chain.base.method,
        model=chain.model.model_copy(update={"weights": weights}),
        optimization=chain.optimization,
        augmentation=chain.augmentation,
    )
    return PlannedStep(0 if first else 1, step, key, parent, ("a",), np.arange(160))


def record(of: PlannedStep, speed: float | None, workers: int = 1, **fields: Any) -> StepRecord:
    seconds = {
        "wait": 1000.0,
        "train": 100.0,
        "start": 3.0,
        "localise": 1.0,
        "evaluate": 2.0,
        "publish": 1.0,
    }
    made: dict[str, Any] = {
        "key": of.key,
        "step": of.step,
        "index": of.index,
        "parent": of.parent,
        "parent_attempt": None,
        "attempt": "a1",
        "files": {},
        "class_names": of.class_names,
        "data": DataSource(name="digits", manifest="m" * 64, split="train"),
        "iterations": of.iterations,
        "seconds": seconds,
        "images_per_second": speed,
        "resources": {"workers": workers},
        "provenance": NOWHERE,
    }
    return StepRecord(**made | fields)


BASE = planned("a", None)
MIB, LWF = planned("b", "a", mib.Config()), planned("c", "a", lwf.Config())


def test_speed_is_the_median_of_the_same_method():
    past = [record(MIB, speed) for speed in (50, 100, 1000)] + [record(LWF, 10)]
    costs = measure(past, Request())
    assert costs.overhead == 7  # waiting for another worker is no cost
    assert costs.seconds(MIB) == pytest.approx(1600 / 100 + 7)
    assert costs.seconds(LWF) == pytest.approx(1600 / 10 + 7)


def test_without_the_method_the_model_tells():
    costs = measure([record(LWF, 10), record(LWF, 20), record(LWF, 30)], Request(), guess=999)
    assert costs.seconds(MIB) == pytest.approx(1600 / 20 + 7)


def test_how_an_encoder_starts_does_not_change_how_fast_it_is():
    pretrained = planned("w", None, weights="ab" * 32)
    assert measure([record(pretrained, 40)], Request()).seconds(BASE) == pytest.approx(
        1600 / 40 + 7
    )


def test_other_models_and_crops_tell_nothing():
    other = BASE.step.model_copy(
        update={"augmentation": BASE.step.augmentation.model_copy(update={"crop": 512})}
    )
    past = [record(BASE, 40, step=other)]
    assert measure(past, Request()).seconds(BASE) is None
    assert measure(past, Request(), guess=16).seconds(BASE) == pytest.approx(1600 / 16 + 7)


def test_a_step_that_was_resumed_at_its_end_has_no_speed():
    assert measure([record(BASE, None)], Request()).seconds(BASE) is None


def test_speed_is_a_workers_and_gpu_hours_are_all_workers():
    costs = measure([record(BASE, 80, workers=2)], Request(workers=4, gpus_per_worker=0.5))
    assert costs.seconds(BASE) == pytest.approx(1600 / (40 * 4) + 7)
    assert costs.gpu_hours(1800) == pytest.approx(0.5 * 4 * 0.5)
    worker_hours = measure([], Request(workers=4, gpus_per_worker=0)).gpu_hours(1800)
    assert worker_hours == pytest.approx(2)


def test_each_kind_of_step_costs_what_it_is_given():
    request = Request(give=("base:workers=4,gpus=1", "increment:gpus=0.25"))
    costs = measure([record(BASE, 80, workers=2)], request)
    assert BASE.index == 0
    assert costs.seconds(BASE) == pytest.approx(1600 / (40 * 4) + 7)
    assert costs.gpu_hours(1800, "base") == pytest.approx(2)
    assert costs.gpu_hours(1800, "increment") == pytest.approx(0.125)


def two_chains() -> StepTree:
    manifest = Manifest(classes=("a", "b"), splits={})
    plans = []
    for name, last in (("one", MIB), ("two", LWF)):
        chain = Chain.model_validate(digits_wilson().model_dump() | {"name": name})
        plans.append(PlannedChain(chain, "m" * 64, manifest, (BASE, last)))
    return build_tree(plans)


def test_an_estimate_counts_shared_steps_once():
    tree = two_chains()
    costs = measure([record(MIB, 16), record(LWF, 32), record(BASE, 160)], Request())
    base = 10 + 7
    slow = 100 + 7
    fast = 50 + 7
    fresh = estimate_cost(tree, {key: StoredStep(StepState.TO_TRAIN) for key in tree.nodes}, costs)
    assert (fresh.images, fresh.naive_images) == (3 * 1600, 4 * 1600)
    assert fresh.seconds == pytest.approx(base + slow + fast)
    assert fresh.naive_seconds == pytest.approx(2 * base + slow + fast)
    assert fresh.critical_path == pytest.approx(base + slow)
    done = record(BASE, 160)
    later = estimate_cost(
        tree,
        {
            "a": StoredStep(StepState.PUBLISHED, done),
            "b": StoredStep(StepState.TO_SCORE, done),
            "c": StoredStep(StepState.TO_TRAIN),
        },
        costs,
    )
    assert later.images == 1600
    assert later.seconds == pytest.approx(7 + fast)
    assert later.naive_seconds == fresh.naive_seconds
    assert later.critical_path == pytest.approx(fast)
    assert images(BASE) == 1600


def test_one_unknown_cost_makes_the_sum_unknown():
    tree = two_chains()
    stored = {key: StoredStep(StepState.TO_TRAIN) for key in tree.nodes}
    unknown = estimate_cost(tree, stored, measure([], Request()))
    assert (unknown.images, unknown.seconds, unknown.naive_seconds, unknown.critical_path) == (
        4800,
        None,
        None,
        None,
    )
    done = {key: StoredStep(StepState.PUBLISHED, record(BASE, None)) for key in tree.nodes}
    assert estimate_cost(tree, done, measure([], Request())).seconds == 0


def test_the_past_is_what_the_store_has(store: Store, publish_chain: Any):
    published = publish_chain(store, "elsewhere")
    own = record(BASE, 10)
    past = past_records(
        store, {"a": StoredStep(StepState.PUBLISHED, own), "b": StoredStep(StepState.TO_TRAIN)}
    )
    assert sorted(each.key for each in past) == sorted(["a", *published.steps])
    assert measure(past, Request()).seconds(BASE) == pytest.approx(1600 / 10 + 7, abs=5)
