"""Fixtures of published chains whose causes of forgetting are known."""

import pytest

from orchestrator.records.repository import Repository
from orchestrator.records.results import ChainResult, load_chains
from orchestrator.store.base import Store
from tests.support.analyses import counts, publish_forgetting_chain
from tests.support.records import publish_chain
from training.methods import lwf, mib


@pytest.fixture
def chain(store: Store) -> ChainResult:
    """Return a published chain whose causes of forgetting are known."""
    return publish_forgetting_chain(store)


@pytest.fixture
def seeds(store: Store) -> tuple[ChainResult, ...]:
    """Return two seeds of one chain, and another chain.

    After their last step 30, 40 and 50 of the only earlier class's 50 pixels are right.
    """
    records = []
    for name, seed, right, method in (
        ("mib", 1, 30, mib.Config()),
        ("mib", 2, 40, mib.Config()),
        ("lwf", 1, 50, lwf.Config()),
    ):
        before = counts((0, 0, 100), (1, 1, 50))
        lost = [(1, 0, 50 - right)] if right < 50 else []
        after = counts((0, 0, 100), (1, 1, right), (2, 2, 20), *lost)
        record = publish_chain(
            store,
            f"{name} seed={seed}",
            method=method,
            groups=((1,), (2,)),
            names=("cat", "dog"),
            seed=seed,
            confusions=[before, after],
        )
        records.append(record)
    return load_chains(Repository(store), records)
