"""Prometheus receives what the records hold."""

import pytest
from prometheus_client import CollectorRegistry

from infra.monitoring.exporter import Records, worker_hours
from orchestrator.records.schema import StepRecord
from orchestrator.store.base import Store, StoreError
from training.methods import mib


def collect(store: Store) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(Records(store))
    return registry


def test_steps_hours_and_reuse_are_counted(store: Store, publish_chain):
    first = publish_chain(store, "WILSON")
    second = publish_chain(store, "MiB", method=mib.Config())
    registry = collect(store)
    assert registry.get_sample_value("stepchain_store_up") == 1
    labels = {"dataset": "digits", "method": "mib"}
    assert registry.get_sample_value("stepchain_steps_total", labels) == 1
    seconds = 42.0 + 3.5  # as the fixture's records have it, on one worker
    assert registry.get_sample_value("stepchain_gpu_hours_total", labels) == pytest.approx(
        seconds / 3600
    )
    assert registry.get_sample_value("stepchain_step_uses_total") == 4

    shared = second.model_copy(update={"key": "f" * 16, "steps": (first.steps[0], second.steps[1])})
    store.write(f"chains/{shared.key}.json", shared.model_dump_json().encode())
    assert registry.get_sample_value("stepchain_step_uses_total") == 6
    assert registry.get_sample_value("stepchain_steps_named_total") == 4


def test_hours_are_of_gpus_where_there_are_some(store: Store, publish_chain):
    chain = publish_chain(store, "WILSON")
    record = StepRecord.model_validate_json(store.read(f"steps/{chain.steps[0]}/record.json"))
    resources = {"workers": 4, "gpus_per_worker": 0.5}
    record = record.model_copy(
        update={"seconds": {"wait": 9999.0, "train": 1800.0}, "resources": resources}
    )
    assert worker_hours(record) == 1.0


def test_a_store_that_does_not_answer_is_told_and_what_was_known_stays(
    store: Store, publish_chain, monkeypatch
):
    publish_chain(store, "WILSON")
    registry = collect(store)
    assert registry.get_sample_value("stepchain_step_uses_total") == 2

    def silent(self: Store, prefix: str = "") -> None:
        raise StoreError("it does not answer")

    monkeypatch.setattr(type(store), "list", silent)
    assert registry.get_sample_value("stepchain_store_up") == 0
    assert registry.get_sample_value("stepchain_step_uses_total") == 2
