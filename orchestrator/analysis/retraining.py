"""Retrain the decoder of a published step, to measure what its encoder still separates.

Retraining continues from the later step with the labels of all classes seen so far, on all training
images that show one of them. It changes only the part that it is asked to change. It is a step
like any other: planned, trained, scored and recorded. No chain holds it.
"""

from typing import Literal

import numpy as np

from orchestrator.datasets.catalog import load_index, resolve
from orchestrator.execution.context import RunContext
from orchestrator.execution.ensure import ensure_step
from orchestrator.execution.evaluate import ensure_evaluation
from orchestrator.planning.chain import Chain
from orchestrator.planning.planner import SPLIT, PlannedChain
from orchestrator.planning.resolver import PlannedStep
from orchestrator.records.keys import step_key
from orchestrator.records.repository import Repository
from orchestrator.records.results import ChainResult, StepResult, load_step
from orchestrator.store.cache import default_cache
from training.binary_method import BinaryMethodConfig
from training.config import MethodConfig
from training.data.shards import Index
from training.methods import retraining
from training.step_config import StepConfig

Part = Literal["classifier", "decoder"]
PARTS: tuple[Part, ...] = ("classifier", "decoder")


def ensure_retrained(
    chain: ChainResult, later: StepResult, context: RunContext
) -> dict[str, StepResult]:
    """Return the later step with a part retrained, by part; train what is not in the store.

    Args:
        chain: The chain that holds the step.
        later: The step whose model is retrained.
        context: The run's store, resources and console.

    Raises:
        StepFailed: An attempt to train failed.
        StoreError: The store does not answer.
    """
    document = Chain.model_validate(chain.record.chain)
    manifest_digest, manifest = resolve(context.store, later.record.data.manifest)
    index = load_index(context.store, manifest, "train", default_cache())
    plan = PlannedChain(document, manifest_digest, manifest, ())
    groups = document.scenario.groups
    repository = Repository(context.store)
    results = {}
    for part in PARTS:
        method = retraining_of(later.record.step.method, part)
        planned = _plan_step(later, document, index, method)
        record = ensure_step(planned, plan, context, later.record)
        evaluation = ensure_evaluation(record, plan.source(SPLIT), plan.scoring, context)
        results[part] = load_step(repository, groups, record.key, evaluation.key)
    return results


def retraining_of(method: MethodConfig, part: Part) -> retraining.Config:
    """Return how a part of a model is retrained that this method trained: by its kind of loss.

    A binary cross-entropy also has its start, if that is one number.
    """
    if method.classifier == "ssul":
        return retraining.Config(part=part, loss="bce")
    if not isinstance(method, BinaryMethodConfig) or not method.is_binary:
        return retraining.Config(part=part)
    start = method.initial_probability
    return retraining.Config(
        part=part, loss="bce", initial_probability=start if isinstance(start, float) else None
    )


def _plan_step(
    later: StepResult, document: Chain, index: Index, method: retraining.Config
) -> PlannedStep:
    """Plan the retraining with the base step's settings, and labels of all classes seen so far."""
    trained = later.record.step
    classes = np.asarray(trained.task.classes)
    rows = np.flatnonzero(index.labels[:, classes - 1].any(1))
    task = trained.task.model_copy(
        update={
            "selection": index.selection_digest(rows),
            "images": len(rows),
            "supervision": "pixel",
            "labels": "seen",
            "memory": None,
            "memory_images": 0,
            "pixel_shares": None,
        }
    )
    step = StepConfig(
        task=task,
        method=method.with_current_recipe(),
        model=trained.model,
        optimization=document.base.optimization.model_copy(update={"frozen": "nothing"}),
        augmentation=trained.augmentation,
        seed=trained.seed,
    )
    parent = later.record.key
    return PlannedStep(
        later.record.index, step, step_key(step, parent), parent, later.record.class_names, rows
    )
