"""Answers to probes are computed once, recorded, and read back."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.analysis import probes
from orchestrator.analysis.probe_record import ProbeRecord
from orchestrator.cluster import crew
from orchestrator.cluster.resources import Resources
from orchestrator.records.repository import Repository
from orchestrator.records.results import ChainResult, load_chains
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from orchestrator.store.retries import DEFAULT_RETRIES, Retries
from tests.support.paths import ROOT
from training.models.tiny import Tiny
from training.runtime import Runtime

OLD_STORE = ROOT / "tests/data/store_0_1/store"
OLD_CHANNELS = 6  # of the encoder in the models of that store


@pytest.fixture
def old_chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Store, ChainResult]:
    """Return a store whose models can be probed, and a chain of two steps in it."""
    monkeypatch.setenv("STEPCHAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Tiny, "channels", OLD_CHANNELS)
    shutil.copytree(OLD_STORE, tmp_path / "old")
    store = open_store(str(tmp_path / "old"))
    repository = Repository(store)
    (chain,) = load_chains(repository, repository.chains()[:1])
    return store, chain


def test_answers_are_computed_once(
    old_chain: tuple[Store, ChainResult], monkeypatch: pytest.MonkeyPatch
):
    store, chain = old_chain
    computed = []

    def run_here(
        works: Sequence[Callable[[Runtime], ProbeRecord]], resources: Resources, retries: Retries
    ) -> Iterator[ProbeRecord]:
        assert resources.workers == 1
        for work in works:
            answer = work(Runtime())
            computed.append(answer.key)
            yield answer

    monkeypatch.setattr(crew, "run_side_by_side", run_here)
    lines: list[str] = []
    resources = Resources(
        workers=1, cpus_per_worker=1, gpus_per_worker=0, loader_workers=0, checkpoint_every=60
    )
    context: Any = SimpleNamespace(
        store=store,
        notify=lines.append,
        resources={"probe": resources}.get,
        retries=DEFAULT_RETRIES,
    )
    asked = probes.standard_probes(["stem"], images=4)
    earlier, later = chain.steps
    answers = probes.ensure_answers(earlier, later, asked, context)
    assert [answer.probe for answer in answers] == list(asked)
    assert computed == [answer.key for answer in answers]
    assert lines[0] == "probing step 1 against step 0: 5 probes"
    assert len(lines) == 1 + len(asked)
    similarity = answers[3]
    assert 0 < similarity.answer["cka"] <= 1
    assert store.read(similarity.name)
    assert probes.ensure_answers(earlier, later, asked, context) == answers
    assert len(computed) == len(asked), "a second question computes nothing"
