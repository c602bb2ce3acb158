"""Fixtures of published chains that nothing was trained for."""

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.records.repository import Repository
from orchestrator.records.results import ChainResult, load_chains
from orchestrator.records.schema import ChainRecord
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from tests.support import records
from tests.support.models import publish_model
from training.methods import fine_tuning, mib

PublishChain = Callable[..., ChainRecord]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def publish_chain() -> PublishChain:
    """Return a function that publishes a chain of made-up results and returns its record."""
    return records.publish_chain


@pytest.fixture
def published(
    store: Store, publish_chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Store:
    """Return a store with a chain `demo`, whose two steps have untrained models."""
    monkeypatch.setenv("STEPCHAIN_CACHE", str(tmp_path / "cache"))
    for key in publish_chain(store, "demo").steps:
        publish_model(store, key)
    return store


@pytest.fixture(scope="session")
def demo_chains(tmp_path_factory: pytest.TempPathFactory) -> tuple[ChainResult, ...]:
    """Return three chains as the demo publishes them, made up and read back."""
    store = open_store(str(tmp_path_factory.mktemp("demo")))
    published = [
        records.publish_chain(store, "WILSON", kept=0.92),
        records.publish_chain(store, "MiB", method=mib.Config(), kept=0.85),
        records.publish_chain(store, "fine-tuning", method=fine_tuning.Config(), kept=0.02),
    ]
    return load_chains(Repository(store), published)
