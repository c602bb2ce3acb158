"""Test that the look-up finds each state, and reads no more of the store than it must."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from orchestrator.planning.campaign import sweep
from orchestrator.planning.planner import PlannedChain
from orchestrator.planning.resolver import PlannedStep
from orchestrator.planning.step_tree import Node, StepTree, build_tree
from orchestrator.planning.store_state import look_up_steps
from orchestrator.records import layout
from orchestrator.records.publish import publish_evaluation
from orchestrator.records.schema import Provenance, StepRecord
from orchestrator.store.base import Store
from orchestrator.store.canonical import canonical_json
from orchestrator.store.folder import FolderStore
from orchestrator.store.lease import LeaseState
from stepchain.presets import digits_mib
from training.config import Task
from training.data.manifest import Manifest, SplitManifest, StoredFile
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


@pytest.fixture
def tree() -> StepTree:
    """Steps 0 and 1 are shared, then each of two chains has two of its own: a b (c d) (e f)."""
    empty = SplitManifest(
        content="v" * 64, rows=4, shards=(), index=StoredFile(sha256="0" * 64, bytes=1)
    )
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
        steps = [
            PlannedStep(n, document, key, parents[n], ("one",), np.arange(20))
            for n, key in enumerate(keys)
        ]
        plans.append(PlannedChain(chain, "m" * 64, manifest, tuple(steps)))
    return build_tree(plans)


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
    """Return a lease that runs out so many seconds from now."""
    expires = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
    state = LeaseState(owner="ada@node", token="t", heartbeat=1, expires=expires)
    store.write(layout.step_lease(key), canonical_json(state))


def states(tree: StepTree, store: Store) -> str:
    found = look_up_steps(tree, store)
    assert list(found) == list(tree.nodes)
    return " ".join(step.state for step in found.values())


def test_steps_stand_as_they_are_in_the_store(tree: StepTree, store: Store):
    assert states(tree, store) == "to train waiting waiting waiting waiting waiting"
    publish(store, tree.nodes["a"])
    assert states(tree, store) == "published to train waiting waiting waiting waiting"
    publish(store, tree.nodes["b"], scored=False)
    assert states(tree, store) == "published to score to train waiting to train waiting"
    lease(store, "c", 30)
    lease(store, "e", -30)
    found = look_up_steps(tree, store)
    assert (found["c"].state, found["e"].state) == ("running", "to train")
    assert found["c"].holder is not None
    assert found["c"].holder.owner == "ada@node"
    assert found["b"].record is not None


def test_only_what_can_be_published_is_looked_for(
    tree: StepTree, store: Store, monkeypatch: pytest.MonkeyPatch
):
    asked: list[str] = []
    read = FolderStore.read

    def counted(self: FolderStore, key: str) -> bytes:
        asked.append(key)
        return read(self, key)

    monkeypatch.setattr(FolderStore, "read", counted)
    look_up_steps(tree, store)
    assert sorted(asked) == ["steps/a/lease.json", "steps/a/record.json"]
