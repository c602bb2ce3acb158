"""Chains planned over a made-up dataset, and steps of theirs published without training: what views of a campaign show."""

from collections.abc import Callable, Mapping
from io import BytesIO

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from orchestrator.planning.chain import Chain
from orchestrator.planning.planner import SPLIT, PlannedChain
from orchestrator.planning.resolver import PlannedStep, Resolver
from orchestrator.records.publish import publish_evaluation
from orchestrator.records.schema import Provenance, StepRecord
from orchestrator.store.base import Store
from orchestrator.store.canonical import canonical_json
from training.data.shards import Index, Manifest, SplitManifest, StoredFile
from training.data.voc import VOC_CLASSES

VOC_IMAGES = 1449  # in PASCAL VOC 2012's val
PROVENANCE = Provenance(
    commit=None,
    dirty=None,
    versions={},
    user="ada",
    host="node",
    device="cpu",
    created="2026-01-02T03:04:05Z",
)

PlanChain = Callable[[Chain], PlannedChain]
PublishStep = Callable[..., StepRecord]


@pytest.fixture(scope="session")
def planned() -> PlanChain:
    """Function that plans a chain over 2,000 made-up images, of VOC's classes or of digits."""
    resolvers = {"voc": _resolver(VOC_CLASSES), "digits": _resolver(tuple("0123456789"))}

    def plan(chain: Chain) -> PlannedChain:
        resolver = resolvers[chain.scenario.dataset]
        rows = VOC_IMAGES if chain.scenario.dataset == "voc" else 300
        split = SplitManifest(
            index=StoredFile(sha256="0" * 64, bytes=0), shards=(), rows=rows, content="c" * 64
        )
        manifest = Manifest(classes=tuple(resolver.classes), splits={SPLIT: split})
        return PlannedChain(chain, "d" * 64, manifest, resolver.resolve(chain))

    return plan


@pytest.fixture
def publish_step() -> PublishStep:
    """Function that publishes a step and its evaluation, in which a class keeps a share of its pixels: 1 but for `right`."""
    return publish


def publish(
    store: Store,
    plan: PlannedChain,
    planned: PlannedStep,
    right: Mapping[int, float] | None = None,
    parent_attempt: str = "a1",
) -> StepRecord:
    record = StepRecord(
        key=planned.key,
        step=planned.step,
        index=planned.index,
        parent=planned.parent,
        parent_attempt=parent_attempt if planned.parent else None,
        attempt="a1",
        files={},
        class_names=planned.class_names,
        data=plan.source("train"),
        iterations=planned.iterations,
        seconds={"train": 42.0},
        images_per_second=312.0,
        resources={"workers": 1},
        provenance=PROVENANCE,
    )
    store.write(f"steps/{planned.key}/record.json", canonical_json(record))
    counts = _confusion(planned.step.task.classes, right or {})
    publish_evaluation(store, planned.key, "a1", plan.source(SPLIT), plan.scoring, counts, "cpu")
    return record


def _confusion(classes: tuple[int, ...], right: Mapping[int, float]) -> bytes:
    """One image with 1,000 pixels of each class; those that are not right read as background, so its IoU is its share."""
    rows = [(0, 0, 0, 1000)]
    for class_id in classes:
        kept = round(1000 * right.get(class_id, 1))
        rows += [
            (0, class_id, predicted, pixels)
            for predicted, pixels in ((class_id, kept), (0, 1000 - kept))
            if pixels
        ]
    names = ("image", "truth", "predicted", "pixels")
    types = (pyarrow.uint32(), pyarrow.uint8(), pyarrow.uint8(), pyarrow.uint32())
    columns = [
        pyarrow.array(column, kind) for column, kind in zip(np.array(rows).T, types, strict=True)
    ]
    out = BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns, names=list(names)), out)
    return out.getvalue()


def _resolver(classes: tuple[str, ...]) -> Resolver:
    labels = np.random.default_rng(0).random((2000, len(classes))) < 0.15
    labels[~labels.any(1), 0] = True
    pixels = np.concatenate([np.ones((len(labels), 1), np.int64), labels.astype(np.int64)], axis=1)
    nothing, ranges = np.zeros(len(labels), np.int64), np.zeros((len(labels), 2), np.int64)
    names, digests = (
        [f"image-{n}" for n in range(len(labels))],
        [f"{n:064x}" for n in range(len(labels))],
    )
    return Resolver(
        classes,
        Index(names, nothing, nothing, nothing, nothing, pixels, ranges, ranges, digests),
        "7" * 64,
    )
