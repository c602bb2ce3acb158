"""Decoders trained anew on a published step: steps of their own, planned, trained, scored and recorded like any other.

The probe continues from the later step with the labels of all classes seen so far, on all training images that show one
of them, and changes only the part it is asked to. It is a step that no chain holds.
"""

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
from training.config import StepConfig
from training.data.shards import Index
from training.methods import retraining

PARTS = ("classifier", "decoder")


def ensure_retrained(
    chain: ChainResult, later: StepResult, place: RunContext
) -> dict[str, StepResult]:
    """The later step with its classifier, and with head and classifier, trained anew. Raises StepFailed and StoreError."""
    document = Chain.model_validate(chain.record.chain)
    manifest_digest, manifest = resolve(place.store, later.record.data.manifest)
    index = load_index(place.store, manifest, "train", default_cache())
    plan = PlannedChain(document, manifest_digest, manifest, ())
    repository = Repository(place.store)
    results = {}
    for part in PARTS:
        planned = _planned(later, document, index, retraining.Config(part=part))
        record = ensure_step(planned, plan, place, later.record)
        evaluation = ensure_evaluation(record, plan.source(SPLIT), plan.scoring, place)
        results[part] = load_step(repository, document.scenario.groups, record.key, evaluation.key)
    return results


def _planned(
    later: StepResult, document: Chain, index: Index, method: retraining.Config
) -> PlannedStep:
    """The probe's step: the base step's settings, all seen classes' labels, all images that show one of them."""
    trained = later.record.step
    rows = np.flatnonzero(index.labels[:, np.asarray(trained.task.classes) - 1].any(1))
    task = trained.task.model_copy(
        update={
            "selection": index.selection_digest(rows),
            "images": len(rows),
            "supervision": "pixel",
            "labels": "seen",
            "memory": None,
            "memory_images": 0,
        }
    )
    step = StepConfig(
        task=task,
        method=method,
        model=trained.model,
        optimization=document.base.optimization.model_copy(update={"frozen": "nothing"}),
        augmentation=trained.augmentation,
        seed=trained.seed,
    )
    key = later.record.key
    return PlannedStep(
        later.record.index, step, step_key(step, key), key, later.record.class_names, rows
    )
