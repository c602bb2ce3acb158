"""What of a campaign's tree is published, what is being trained, and what is left to do: looked up, and nothing changed."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from orchestrator.planning.step_tree import Node, StepTree
from orchestrator.records import layout
from orchestrator.records.repository import Repository
from orchestrator.records.schema import StepRecord
from orchestrator.store.base import READERS, Store
from orchestrator.store.lease import LeaseState, read_lease

# published: with all its evaluations; to score: trained, an evaluation is missing; training: somebody holds its lease;
# to train: its parent is published, or it needs none; waiting: its parent is not published yet.
State = Literal["published", "to score", "training", "to train", "waiting"]


@dataclass(frozen=True)
class StoredStep:
    """How a node stands in the store."""

    state: State
    record: StepRecord | None = None  # of a step that is published or to be scored
    holder: LeaseState | None = None  # who is training it


def look_up_steps(tree: StepTree, store: Store) -> dict[str, StoredStep]:
    """How every node stands, by key, parents first. Looks into the store only for steps whose parent is published.

    Whether a lease is alive is judged by its holder's clock: good enough to tell people, never to take it over.
    """
    repository = Repository(store)
    found: dict[str, StoredStep] = {}
    generation = [node for node in tree.nodes.values() if node.parent is None]
    with ThreadPoolExecutor(READERS) as readers:
        while generation:
            standings = readers.map(lambda node: _standing(node, repository), generation)
            found |= {
                node.key: standing for node, standing in zip(generation, standings, strict=True)
            }
            trained = [node for node in generation if found[node.key].record]
            generation = [tree.nodes[child] for node in trained for child in node.children]
    return {key: found.get(key, StoredStep("waiting")) for key in tree.nodes}


def _standing(node: Node, repository: Repository) -> StoredStep:
    record = repository.find_step(node.key)
    if record:
        scored = all(repository.find_evaluation(record, each) for _, each in node.scorings)
        return StoredStep("published" if scored else "to score", record)
    holder = read_lease(repository.store, layout.step_lease(node.key))
    alive = holder is not None and not holder.expired
    return StoredStep("training", holder=holder) if alive else StoredStep("to train")
