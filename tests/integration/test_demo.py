"""What two runs of `make demo` published.

The methods are in the papers' order, every step has one attempt, and the second run trained
nothing.
"""

import os

import pytest

from orchestrator.records.repository import Repository
from orchestrator.records.results import ChainResult, load_chains
from orchestrator.store.open import open_store
from training.metrics import wilson

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def chains() -> dict[str, ChainResult]:
    uri = os.environ.get("STEPCHAIN_DEMO_STORE")
    if uri is None:
        pytest.skip("`make verify` runs `make demo` twice, and sets STEPCHAIN_DEMO_STORE")
    store = open_store(uri)
    names = ("digits_wilson", "digits_mib", "digits_finetuning")
    repository = Repository(store)
    loaded = load_chains(repository, [repository.chain_by_name(name) for name in names])
    return dict(zip(names, loaded, strict=True))


def test_methods_stand_in_the_order_that_the_papers_report(chains) -> None:
    scores = {name: chain.scores(wilson())[-1] for name, chain in chains.items()}
    base = chains["digits_wilson"].scores(wilson())[0]
    assert base.miou_new > 0.7
    assert scores["digits_wilson"].miou_old > 0.7
    assert scores["digits_wilson"].miou_new > 0.6  # from image labels alone
    assert scores["digits_mib"].miou_old > 0.7
    assert scores["digits_mib"].miou_new > 0.6
    assert scores["digits_finetuning"].miou_old < 0.1
    assert scores["digits_finetuning"].miou_new > 0.6


def test_every_step_was_trained_once_and_the_shared_one_is_shared(chains) -> None:
    steps = {step.record.key: step.record for chain in chains.values() for step in chain.steps}
    assert len(steps) == 5
    assert all(record.resources["attempts"] == 1 for record in steps.values())
    assert chains["digits_mib"].steps[0].record == chains["digits_finetuning"].steps[0].record
