"""Fixtures of chains planned over a made-up dataset, and of their steps published untrained."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from orchestrator.planning.chain import Chain, with_current_recipes
from orchestrator.planning.planner import SPLIT, PlannedChain
from orchestrator.planning.resolver import PlannedStep, Resolver
from orchestrator.records.schema import StepRecord
from orchestrator.store.base import Store
from tests.support import records
from tests.support.datasets import make_index
from training.data.manifest import Manifest, SplitManifest, StoredFile
from training.data.voc import VOC_CLASSES

IMAGES = 2000  # of the made-up training split
VOC_IMAGES = 1449  # of PASCAL VOC 2012's val

PlanChain = Callable[[Chain], PlannedChain]
PublishStep = Callable[..., StepRecord]


@pytest.fixture(scope="session")
def planned() -> PlanChain:
    """Return a function that plans a chain over made-up images of VOC's classes or of digits."""
    resolvers = {"voc": _resolver(VOC_CLASSES), "digits": _resolver(records.DIGITS)}

    def plan(chain: Chain) -> PlannedChain:
        chain = with_current_recipes(chain)
        resolver = resolvers[chain.scenario.dataset]
        rows = VOC_IMAGES if chain.scenario.dataset == "voc" else 300
        index = StoredFile(sha256="0" * 64, bytes=0)
        split = SplitManifest(index=index, shards=(), rows=rows, content="c" * 64)
        manifest = Manifest(classes=tuple(resolver.classes), splits={SPLIT: split})
        return PlannedChain(chain, "d" * 64, manifest, resolver.resolve(chain))

    return plan


@pytest.fixture
def publish_step() -> PublishStep:
    """Return a function that publishes a step and its evaluation, and returns the step's record."""
    return _publish_step


def _publish_step(
    store: Store,
    plan: PlannedChain,
    planned: PlannedStep,
    right: Mapping[int, float] | None = None,
    parent_attempt: str = records.ATTEMPT,
) -> StepRecord:
    """Publish a step whose classes keep these shares of their pixels: all of them by default."""
    counts = records.counts_with_shares(planned.step.task.classes, right or {})
    record, _ = records.publish_step(store, plan, planned, counts, parent_attempt=parent_attempt)
    return record


def _resolver(classes: tuple[str, ...]) -> Resolver:
    labels = np.random.default_rng(0).random((IMAGES, len(classes))) < 0.15
    labels[~labels.any(1), 0] = True
    return Resolver(classes, make_index(labels), "7" * 64)
