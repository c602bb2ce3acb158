"""A survey tells what is published, scored, trained and ready, and reads no more of the store than it must."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from jobs.chains import digits_mib
from orchestrator.campaign import sweep
from orchestrator.evaluations import publish_evaluation
from orchestrator.identity import canonical_json
from orchestrator.lease import LeaseState, lease_key
from orchestrator.plan import PlannedStep
from orchestrator.planner import PlannedChain
from orchestrator.record import Provenance, StepRecord
from orchestrator.store import FolderStore, Store
from orchestrator.survey import survey
from orchestrator.tree import Node, Tree, grow
from training.config import StepConfig, Task
from training.data.shards import Manifest, SplitManifest, StoredFile

NOWHERE = Provenance(
    commit=None, dirty=None, versions={}, user="ada", host="node", device="cpu", created="2026-01-02T03:04:05Z"
)


@pytest.fixture
def tree() -> Tree:
    """Steps 0 and 1 are shared, then each of two chains has two of its own: a b (c d) (e f)."""
    empty = SplitManifest(content="v" * 64, rows=4, shards=(), index=StoredFile(sha256="0" * 64, bytes=1))
    manifest = Manifest(classes=("one", "two"), splits={"train": empty, "val": empty})
    chains = sweep(digits_mib(), {"seed": (1, 2)})
    document = StepConfig(
        task=Task(data="d", groups=((1,),), selection="s", images=20, supervision="pixel"),
        method=chains[0].base.method,
        model=chains[0].model,
        optimization=chains[0].optimization,
        augmentation=chains[0].augmentation,
    )
    plans = []
    for chain, keys in zip(chains, ("abcd", "abef"), strict=True):
        parents = [None, *keys]
        steps = [PlannedStep(n, document, key, parents[n], ("one",), np.arange(20)) for n, key in enumerate(keys)]
        plans.append(PlannedChain(chain, "m" * 64, manifest, tuple(steps)))
    return grow(plans)


def publish(store: Store, node: Node, *, scored: bool = True) -> None:
    """Leave what a trained step leaves."""
    record = StepRecord(
        key=node.key,
        step=node.planned.step,
        index=node.planned.index,
        parent=node.parent,
        parent_attempt=None,
        attempt="a1",
        files={},
        class_names=node.planned.class_names,
        data=node.plan.source("train"),
        iterations=1,
        seconds={},
        images_per_second=None,
        resources={},
        provenance=NOWHERE,
    )
    store.write(f"steps/{node.key}/record.json", canonical_json(record))
    if scored:
        for source, scoring in node.scorings:
            publish_evaluation(store, node.key, "a1", source, scoring, b"counts", "cpu")


def lease(store: Store, key: str, seconds: float) -> None:
    """A lease that runs out so many seconds from now."""
    expires = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
    state = LeaseState(owner="ada@node", token="t", heartbeat=1, expires=expires, progress={})
    store.write(lease_key(key), canonical_json(state))


def states(tree: Tree, store: Store) -> str:
    found = survey(tree, store)
    assert list(found) == list(tree.nodes)
    return " ".join(standing.state for standing in found.values())


def test_steps_stand_as_they_are_in_the_store(tree: Tree, store: Store):
    assert states(tree, store) == "to train waiting waiting waiting waiting waiting"
    publish(store, tree.nodes["a"])
    assert states(tree, store) == "published to train waiting waiting waiting waiting"
    publish(store, tree.nodes["b"], scored=False)
    assert states(tree, store) == "published to score to train waiting to train waiting"
    lease(store, "c", 30)
    lease(store, "e", -30)
    found = survey(tree, store)
    assert (found["c"].state, found["e"].state) == ("training", "to train")
    assert found["c"].holder is not None
    assert found["c"].holder.owner == "ada@node"
    assert found["b"].record is not None


def test_only_what_can_be_published_is_looked_for(tree: Tree, store: Store, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    read = FolderStore.read

    def counted(self: FolderStore, key: str) -> bytes:
        asked.append(key)
        return read(self, key)

    monkeypatch.setattr(FolderStore, "read", counted)
    survey(tree, store)
    assert sorted(asked) == ["steps/a/lease.json", "steps/a/record.json"]
