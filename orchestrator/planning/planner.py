"""Plan chains over the datasets of a store, and check them before anything is spent.

A planner reads each dataset's index once. So planning thousands of chains takes seconds.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache, partial
from types import MappingProxyType

from orchestrator.cluster.give import Kind, step_kind
from orchestrator.datasets.catalog import load_index
from orchestrator.datasets.catalog import resolve as resolve_dataset
from orchestrator.datasets.image_lists import Lists, load_lists
from orchestrator.datasets.layers import find_layer
from orchestrator.datasets.overlap import check_unseen
from orchestrator.planning.chain import Chain, with_current_recipes
from orchestrator.planning.resolver import PlanError, PlannedStep, Resolver
from orchestrator.planning.step_layers import StoredLayer
from orchestrator.records import layout
from orchestrator.records.schema import DataSource, Scoring
from orchestrator.store.base import Store
from orchestrator.store.cache import default_cache
from training.config import ModelConfig
from training.data.manifest import Manifest
from training.encoder_check import check_encoder

SPLIT = "val"  # what a chain's steps are scored on


@dataclass(frozen=True)
class PlannedChain:
    """A checked chain with its dataset and its steps in order."""

    chain: Chain  # with the recipes of its steps
    manifest_digest: str
    manifest: Manifest
    steps: tuple[PlannedStep, ...]
    whole: bool = True
    """False if only the first steps are asked for. Then the chain's record is not published."""

    @property
    def batches(self) -> list[tuple[Kind, int]]:
        """Return the batch of each step that is trained, with the step's kind."""
        return [
            (step_kind(each.index), each.step.optimization.batch)
            for each in self.steps
            if each.step.method.trains
        ]

    def source(self, split: str) -> DataSource:
        """Return the split of the chain's dataset as records name it."""
        return DataSource(
            name=self.chain.scenario.dataset, manifest=self.manifest_digest, split=split
        )

    @property
    def scoring(self) -> Scoring:
        """Return how the chain's steps are scored."""
        return Scoring(self.chain.scenario.dataset, self.manifest, SPLIT, self.chain.evaluation)


def plan_chain(chain: Chain, store: Store, *, allow_overlap: bool = False) -> PlannedChain:
    """Plan a single chain. Take and raise what `Planner` does."""
    return Planner(store, allow_overlap=allow_overlap).plan(chain)


class Planner:
    """Plans chains over the datasets of a store, and remembers what the chains share.

    Args:
        store: Where the datasets are.
        new_weights: Digests of encoder weights that the caller stores before anything is trained.
        new_lists: Image lists by digest, which the caller stores before anything is trained.
        recorded: The chains come from records. They keep the recipes that they were trained by, so
            steps of older recipes are found. Otherwise a plan takes the recipes of today's code.
        allow_overlap: Plan chains although images that they are scored on are trained on, too.
            Recorded chains were allowed to.
    """

    def __init__(
        self,
        store: Store,
        new_weights: Collection[str] = (),
        *,
        new_lists: Mapping[str, Lists] = MappingProxyType({}),
        recorded: bool = False,
        allow_overlap: bool = False,
    ) -> None:
        self.store = store
        self._new_weights = new_weights
        self._new_lists = new_lists
        self._recorded = recorded
        self._allow_overlap = allow_overlap or recorded
        self._datasets: dict[str, tuple[str, Manifest, Resolver]] = {}
        self._models: set[ModelConfig] = set()

    def plan(self, chain: Chain) -> PlannedChain:
        """Resolve a chain to steps and check all that can be checked before anything is spent.

        Raises:
            InputError: The chain cannot be trained as it is asked for.
            StoreError: The store does not answer.
        """
        if not self._recorded:
            chain = with_current_recipes(chain)
        name = chain.scenario.dataset
        if name not in self._datasets:
            self._datasets[name] = self._open(name)
        manifest_digest, manifest, resolver = self._datasets[name]
        steps = resolver.resolve(chain)
        self._check_adopted(steps[0])
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
        if not self._allow_overlap:
            check_unseen(self.store, manifest_digest, name, manifest, SPLIT)
        split = manifest.splits["train"]
        index = load_index(self.store, manifest, "train", default_cache())
        lists = cache(self._lists)
        open_layer = cache(partial(self._open_layer, manifest, name))
        resolver = Resolver(manifest.classes, index, split.content, lists, open_layer)
        return manifest_digest, manifest, resolver

    def _open_layer(self, manifest: Manifest, dataset: str, name: str) -> StoredLayer:
        identity = find_layer(self.store, manifest, dataset, name)
        _, layer = resolve_dataset(self.store, identity)
        return StoredLayer(name, identity, load_index(self.store, layer, "train", default_cache()))

    def _lists(self, digest: str) -> Lists:
        return self._new_lists.get(digest) or load_lists(self.store, digest)

    def _check_adopted(self, step: PlannedStep) -> None:
        if self._recorded or step.step.method.trains:
            return
        if not self.store.exists(layout.step_record(step.key)):
            raise PlanError(
                f"the store {self.store.uri} has no adopted step {step.key} with these weights, "
                "classes and model: take --adopted NAME, which sets all three, or adopt it with "
                "python -m jobs.adopt"
            )

    def _check(self, model: ModelConfig) -> None:
        check_encoder(model)
        if model.backbone is not None and not self._recorded:
            # It imports Transformers, which only its encoders need.
            from training.models.library import check_complete

            check_complete(model.backbone.architecture)
        weights = model.weights
        if weights is None or weights in self._new_weights:
            return
        if not self.store.exists(layout.encoder_weights(weights)):
            raise PlanError(
                f"the store {self.store.uri} has no encoder weights {weights}: "
                "publish them with --encoder-weights"
            )
