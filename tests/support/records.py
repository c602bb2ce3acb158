"""Publish steps, evaluations and chains without training anything."""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import numpy as np

from orchestrator.planning.chain import Base, Chain
from orchestrator.planning.planner import SPLIT, PlannedChain
from orchestrator.planning.resolver import PlannedStep
from orchestrator.records import layout
from orchestrator.records.publish import publish_evaluation
from orchestrator.records.schema import (
    ChainRecord,
    DataSource,
    EvaluationRecord,
    File,
    Provenance,
    StepRecord,
)
from orchestrator.store.base import Store
from orchestrator.store.canonical import canonical_json
from tests.support.confusions import confusion_of_rows, counts_parquet, made_up_confusion
from training.config import EvaluationConfig, MethodConfig, ModelConfig, Optimization, Task
from training.methods import fine_tuning, wilson
from training.metrics import Confusion
from training.scenario import Scenario
from training.step_config import StepConfig

DIGITS = tuple("0123456789")
PROVENANCE = Provenance(
    commit="0123456789abcdef",
    dirty=None,
    versions={"torch": "2.13.0"},
    user="ada",
    host="node",
    device="cpu",
    created="2026-01-02T03:04:05Z",
)
DATA = DataSource(name="digits", manifest="d" * 64, split="val")
ATTEMPT = "a1"


def publish_step(
    store: Store,
    plan: PlannedChain,
    planned: PlannedStep,
    counts: bytes,
    curves: Sequence[Mapping[str, float]] = (),
    parent_attempt: str = ATTEMPT,
) -> tuple[StepRecord, EvaluationRecord]:
    """Publish a planned step, and its evaluation with these confusion counts (Parquet)."""
    data = json.dumps(list(curves)).encode()
    record = StepRecord(
        key=planned.key,
        step=planned.step,
        index=planned.index,
        parent=planned.parent,
        parent_attempt=parent_attempt if planned.parent else None,
        attempt=ATTEMPT,
        files={"curves.json": digest_of(data)} if curves else {},
        class_names=planned.class_names,
        data=plan.source("train"),
        iterations=planned.iterations,
        seconds={"train": 42.0},
        images_per_second=312.0,
        resources={"workers": 1},
        provenance=PROVENANCE,
    )
    if curves:
        store.write(layout.published_file(planned.key, ATTEMPT, "curves.json"), data)
    store.write(layout.step_record(planned.key), canonical_json(record))
    source = plan.source(SPLIT)
    evaluation = publish_evaluation(
        store, planned.key, ATTEMPT, source, plan.scoring, counts, "cpu"
    )
    return record, evaluation


def counts_with_shares(classes: Sequence[int], right: Mapping[int, float]) -> bytes:
    """Return counts of one image with 1,000 pixels of each class, as Parquet.

    A class keeps the share of its pixels that `right` names, else all of them. The others are
    predicted as background, so the IoU of a class is its share.
    """
    rows = [(0, 0, 0, 1000)]
    for class_id in classes:
        kept = round(1000 * right.get(class_id, 1))
        shares = ((class_id, kept), (0, 1000 - kept))
        rows += [(0, class_id, predicted, pixels) for predicted, pixels in shares if pixels]
    return counts_parquet(confusion_of_rows(rows))


def publish_chain(
    store: Store,
    name: str,
    *,
    groups: tuple[tuple[int, ...], ...] = ((1, 2, 3, 4, 5, 6), (7, 8, 9, 10)),
    method: MethodConfig | None = None,
    kept: float = 0.8,
    names: tuple[str, ...] = DIGITS,
    content: str = "c" * 64,
    created: str = "2026-01-02T03:04:05Z",
    seed: int = 0,
    confusions: Sequence[Confusion] = (),
) -> ChainRecord:
    """Publish a chain of made-up results that no plan knows, and return its record.

    Args:
        store: Store to publish to.
        name: Name of the chain.
        groups: Dataset ids of the classes of each step.
        method: Method of the later steps; by default WILSON.
        kept: Share of the pixels of old classes that later steps still predict right.
        names: Names of the dataset's classes.
        content: Content digest of the split that the steps were scored on.
        created: When the chain was published.
        seed: Seed of the chain and of the made-up results.
        confusions: Exact counts of each step instead of made-up ones.
    """
    method = method or wilson.Config()
    weak = isinstance(method, wilson.Config)
    base = fine_tuning.Config(loss="bce" if weak else "cross_entropy")
    named = []
    for group in groups:
        named.append(tuple(names[class_id - 1] for class_id in group))
    scenario = Scenario(
        dataset="digits", groups=tuple(named), supervision="image" if weak else "pixel"
    )
    chain = Chain(name=name, scenario=scenario, base=Base(method=base), method=method, seed=seed)
    class_names = dict(enumerate(("background", *names)))
    steps: list[str] = []
    evaluations: list[str] = []
    for index in range(len(groups)):
        learned = groups[: index + 1]
        key = made_up_key(name, seed, index, created)
        config = _step_config(chain, learned, weak)
        curves = made_up_curves(index, weak)
        _write_step(store, key, config, steps[-1] if steps else None, curves, class_names)
        if confusions:
            confusion = confusions[index]
        else:
            confusion = made_up_confusion(learned, len(names), kept, seed)
        evaluation = made_up_key("evaluation", name, index)
        _write_evaluation(store, key, evaluation, confusion, content, class_names)
        steps.append(key)
        evaluations.append(evaluation)
    record = ChainRecord(
        key=made_up_key(name, seed, created),
        chain=chain.model_dump(mode="json"),
        steps=tuple(steps),
        evaluations=tuple(evaluations),
        created=created,
    )
    store.write(layout.chain_record(record.key), record.model_dump_json().encode())
    return record


def _step_config(chain: Chain, groups: tuple[tuple[int, ...], ...], weak: bool) -> StepConfig:
    index = len(groups) - 1
    task = Task(
        data="7" * 64,
        groups=groups,
        selection=sha256(f"rows/{index}".encode()).hexdigest(),
        images=500 - 100 * index,
        supervision="image" if weak and index else "pixel",
    )
    return StepConfig(
        task=task,
        method=chain.method if index else chain.base.method,
        model=ModelConfig(encoder="tiny", output_stride=4, head_channels=24, eval_pooling=16),
        optimization=Optimization(epochs=10, batch=16),
        augmentation=chain.augmentation,
        seed=chain.seed,
    )


def _write_step(
    store: Store,
    key: str,
    config: StepConfig,
    parent: str | None,
    curves: list[dict[str, float]],
    class_names: Mapping[int, str],
) -> None:
    data = json.dumps(curves).encode()
    record = StepRecord(
        key=key,
        step=config,
        index=len(config.task.groups) - 1,
        parent=parent,
        parent_attempt=ATTEMPT if parent else None,
        attempt=ATTEMPT,
        files={"curves.json": digest_of(data)},
        class_names=tuple(class_names[class_id] for class_id in config.task.classes),
        data=DATA.model_copy(update={"split": "train"}),
        iterations=300,
        seconds={"train": 42.0, "evaluate": 3.5},
        images_per_second=312.0,
        resources={"workers": 1},
        provenance=PROVENANCE,
    )
    store.write(layout.published_file(key, ATTEMPT, "curves.json"), data)
    store.write(layout.step_record(key), record.model_dump_json().encode())


def _write_evaluation(
    store: Store,
    step: str,
    key: str,
    confusion: Confusion,
    content: str,
    class_names: dict[int, str],
) -> None:
    counts = counts_parquet(confusion)
    record = EvaluationRecord(
        key=key,
        step=step,
        attempt=ATTEMPT,
        data=DATA,
        content=content,
        config=EvaluationConfig(short_side=None, crop=None),
        images=len(np.unique(confusion.image)),
        class_names=class_names,
        confusion=digest_of(counts),
        provenance=PROVENANCE,
    )
    store.write(layout.evaluation_counts(step, key), counts)
    store.write(layout.evaluation_record(step, key), record.model_dump_json().encode())


def made_up_curves(index: int, weak: bool) -> list[dict[str, Any]]:
    """Return training curves of 300 iterations, as step `index` would log them."""
    rng = np.random.default_rng(index)
    names = ["classification", "prior", "encoder"] if weak and index else ["cross_entropy"]
    rows = []
    for iteration in range(10, 310, 10):
        terms = {}
        for number, name in enumerate(names):
            fall = np.exp(-iteration / 120 - number)
            terms[f"loss/{name}"] = float(fall + rng.uniform(0.02, 0.05))
        if weak and index and iteration > 90:
            fall = 0.6 * np.exp(-iteration / 200)
            terms["loss/segmentation"] = float(fall + rng.uniform(0.02, 0.05))
        lr = 0.01 * (1 - iteration / 310) ** 0.9
        row = {
            "iteration": iteration,
            "total": 300,
            "epoch": iteration / 30,
            "time": 1.7e9 + iteration,
            "images_per_second": 312.0,
            "loss": sum(terms.values()),
            "lr/encoder": lr / 10,
            "lr/head": lr,
        }
        rows.append(row | terms)
    return rows


def digest_of(data: bytes) -> File:
    """Return the entry of a record for a file with these bytes."""
    return File(sha256=sha256(data).hexdigest(), bytes=len(data))


def made_up_key(*parts: object) -> str:
    """Return 16 hex digits that follow from `parts`."""
    return sha256("/".join(map(str, parts)).encode()).hexdigest()[:16]
