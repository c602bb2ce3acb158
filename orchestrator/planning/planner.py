"""Plan chains over the datasets of a store, and check them before anything is spent.

A planner reads each dataset's index once. So planning thousands of chains takes seconds.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache, partial

from orchestrator.datasets.catalog import load_index
from orchestrator.datasets.catalog import resolve as resolve_dataset
from orchestrator.datasets.image_lists import load_lists
from orchestrator.planning.chain import Chain
from orchestrator.planning.resolver import PlanError, PlannedStep, Resolver
from orchestrator.records import layout
from orchestrator.records.schema import DataSource, Scoring
from orchestrator.store.base import Store
from orchestrator.store.cache import default_cache
from training.config import ModelConfig, check_output_stride
from training.data.manifest import Manifest

SPLIT = "val"  # what a chain's steps are scored on


@dataclass(frozen=True)
class PlannedChain:
    """A checked chain with its dataset and its steps in order."""

    chain: Chain
    manifest_digest: str
    manifest: Manifest
    steps: tuple[PlannedStep, ...]
    whole: bool = True
    """False if only the first steps are asked for. Then the chain's record is not published."""

    def source(self, split: str) -> DataSource:
        """Return the split of the chain's dataset as records name it."""
        return DataSource(
            name=self.chain.scenario.dataset, manifest=self.manifest_digest, split=split
        )

    @property
    def scoring(self) -> Scoring:
        """Return how the chain's steps are scored."""
        return Scoring(self.chain.scenario.dataset, self.manifest, SPLIT, self.chain.evaluation)


def plan_chain(chain: Chain, store: Store) -> PlannedChain:
    """Plan a single chain. Raise what `Planner.plan` raises."""
    return Planner(store).plan(chain)


class Planner:
    """Plans chains over the datasets of a store, and remembers what the chains share.

    Args:
        store: Where the datasets are.
        new_weights: Digests of encoder weights that the caller stores before anything is trained.
    """

    def __init__(self, store: Store, new_weights: Collection[str] = ()) -> None:
        self.store = store
        self._new_weights = new_weights
        self._datasets: dict[str, tuple[str, Manifest, Resolver]] = {}
        self._models: set[ModelConfig] = set()

    def plan(self, chain: Chain) -> PlannedChain:
        """Resolve a chain to steps and check all that can be checked before anything is spent.

        Raises:
            InputError: The chain cannot be trained as it is asked for.
            StoreError: The store does not answer.
        """
        name = chain.scenario.dataset
        if name not in self._datasets:
            self._datasets[name] = self._open(name)
        manifest_digest, manifest, resolver = self._datasets[name]
        steps = resolver.resolve(chain)
        if chain.model not in self._models:
            self._check(chain.model)
            self._models.add(chain.model)
        return PlannedChain(chain, manifest_digest, manifest, steps)

    def _open(self, name: str) -> tuple[str, Manifest, Resolver]:
        manifest_digest, manifest = resolve_dataset(self.store, name)
        for needed in ("train", SPLIT):
            if needed not in manifest.splits:
                raise PlanError(
                    f"dataset {name!r} has no split {needed!r}, which chains need: "
                    "ingest it again with one"
                )
        split = manifest.splits["train"]
        index = load_index(self.store, manifest, "train", default_cache())
        lists = cache(partial(load_lists, self.store))
        return manifest_digest, manifest, Resolver(manifest.classes, index, split.content, lists)

    def _check(self, model: ModelConfig) -> None:
        check_output_stride(model)
        weights = model.weights
        if weights is None or weights in self._new_weights:
            return
        if not self.store.exists(layout.encoder_weights(weights)):
            raise PlanError(
                f"the store {self.store.uri} has no encoder weights {weights}: "
                "publish them with --encoder-weights"
            )
