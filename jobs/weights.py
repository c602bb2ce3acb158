"""Complete chains with pretrained weights of their encoder."""

from collections.abc import Iterable

from orchestrator.datasets.pretrained import publish_weights
from orchestrator.planning.chain import Chain
from orchestrator.store.base import Store
from training.config import ModelConfig


def with_weights(chains: Iterable[Chain], source: str | None, store: Store) -> list[Chain]:
    """Return the chains with the encoder's weights at `source`, which are checked and stored.

    Without a source the chains stay as they are.
    """
    if source is None:
        return list(chains)
    published: dict[ModelConfig, str] = {}
    found = []
    for chain in chains:
        if chain.model not in published:
            published[chain.model] = publish_weights(store, source, chain.model)
        model = chain.model.model_copy(update={"weights": published[chain.model]})
        found.append(chain.model_copy(update={"model": model}))
    return found
