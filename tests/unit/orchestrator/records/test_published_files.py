"""Test that files which records name are missed when they are gone, cut short or damaged."""

from typing import cast

import pytest

from orchestrator.records import layout
from orchestrator.records.published_files import (
    counts_of,
    files_of_step,
    has_counts,
    missing_file,
    verify,
)
from orchestrator.records.repository import Repository
from orchestrator.records.schema import EvaluationRecord, StepRecord
from orchestrator.store.base import Store
from tests.support.counting_store import CountingStore
from tests.support.records import publish_chain


@pytest.fixture
def step(store: Store) -> tuple[StepRecord, EvaluationRecord]:
    """Publish a chain; return the records of its first step."""
    chain = publish_chain(store, "digits_wilson")
    repository = Repository(store)
    key = chain.steps[0]
    return repository.step(key), repository.evaluation(key, chain.evaluations[0])


def test_a_file_that_is_gone_or_cut_short_is_missed(
    step: tuple[StepRecord, EvaluationRecord], store: Store, caplog: pytest.LogCaptureFixture
):
    record, _ = step
    counting = CountingStore(store)
    assert missing_file(cast(Store, counting), record) is None
    assert counting.requests.total() == 1
    (curves,) = files_of_step(record)
    store.write(curves.key, store.read(curves.key)[:-1])
    assert missing_file(store, record)
    store.delete(curves.key)
    assert missing_file(store, record)
    assert curves.key in caplog.text
    assert f"delete '{layout.step_record(record.key)}'" in caplog.text


def test_counts_that_are_gone_are_missed(
    step: tuple[StepRecord, EvaluationRecord], store: Store, caplog: pytest.LogCaptureFixture
):
    _, evaluation = step
    assert has_counts(store, evaluation)
    store.delete(counts_of(evaluation).key)
    assert not has_counts(store, evaluation)
    name = layout.evaluation_record(evaluation.step, evaluation.key)
    assert f"delete '{name}', and the step is scored again" in caplog.text


@pytest.mark.parametrize("local", [True, False])
def test_digests_are_verified_of_what_the_store_holds_now(
    step: tuple[StepRecord, EvaluationRecord], store: Store, local: bool
):
    record, evaluation = step
    named = [*files_of_step(record), counts_of(evaluation)]
    there = store if local else cast(Store, CountingStore(store))
    assert verify(there, named).problems == ()
    curves = named[0].key
    store.write(curves, store.read(curves).replace(b"4", b"5"))
    store.delete(named[1].key)
    found = verify(there, named)
    assert [problem.split(": ")[0] for problem in found.problems] == [
        f"{curves} is damaged",
        f"{named[1].key} is gone, and {named[1].record} names it",
    ]
    assert str(found).startswith("2 published files (")
    assert str(found).endswith("were read again: 2 are gone or damaged")
