"""Export counts of a store's records to Prometheus: `python -m infra.monitoring.exporter`.

The counts come from records, so they survive every cluster and count each step once. A record never
changes, so the exporter reads it once and then only lists keys.

A step is used each time a chain names it. Uses minus steps is what sharing saved.
"""

import argparse
import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import chain

from prometheus_client import REGISTRY, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from orchestrator.records import layout
from orchestrator.records.schema import ChainRecord, StepRecord
from orchestrator.records.store_version import open_checked_store
from orchestrator.store.base import Store, StoreError
from orchestrator.store.open import default_store

log = logging.getLogger(__name__)
Kind = tuple[str, str]  # dataset and method


class Records(Collector):
    """Collector that Prometheus asks for the counts of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._steps: dict[str, StepRecord] = {}  # by the name of the object
        self._chains: dict[str, tuple[str, ...]] = {}

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Read new records and yield all counts; `stepchain_store_up` is 0 where that fails."""
        up = GaugeMetricFamily("stepchain_store_up", "Whether the store answered")
        try:
            self._read_new()
            up.add_metric([], 1)
        except StoreError as error:
            log.warning("%s", error)
            up.add_metric([], 0)
        yield up
        steps = defaultdict[Kind, float](float)
        hours = defaultdict[Kind, float](float)
        for record in self._steps.values():
            kind = (record.data.name, record.step.method.name)
            steps[kind] += 1
            hours[kind] += worker_hours(record)
        yield _family("stepchain_steps", "Published steps", steps)
        yield _family(
            "stepchain_gpu_hours",
            "Hours of workers' GPUs that published steps took; without GPUs, of workers",
            hours,
        )
        uses = CounterMetricFamily("stepchain_step_uses", "How often published chains name a step")
        uses.add_metric([], sum(len(names) for names in self._chains.values()))
        yield uses
        named = CounterMetricFamily(
            "stepchain_steps_named", "Steps that published chains name, each counted once"
        )
        named.add_metric([], len(set(chain.from_iterable(self._chains.values()))))
        yield named

    def _read_new(self) -> None:
        for key in self._store.list(layout.STEPS):
            if layout.is_step_record(key) and key not in self._steps:
                self._steps[key] = StepRecord.model_validate_json(self._store.read(key))
        for key in self._store.list(layout.CHAINS):
            if key not in self._chains:
                self._chains[key] = ChainRecord.model_validate_json(self._store.read(key)).steps


def worker_hours(record: StepRecord) -> float:
    """Return the GPU-hours of a step. A worker without a GPU counts as one."""
    seconds = sum(record.seconds.values()) - record.seconds.get("wait", 0)
    gpus = record.resources.get("gpus_per_worker") or 1
    return seconds * record.resources.get("workers", 1) * gpus / 3600


def _family(name: str, words: str, values: Mapping[Kind, float]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, words, labels=["dataset", "method"])
    for labels, value in sorted(values.items()):
        family.add_metric(labels, value)
    return family


def main() -> None:
    """Serve the counts until the process ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", default=default_store())
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9108)
    options = parser.parse_args()
    REGISTRY.register(Records(open_checked_store(options.store)))
    start_http_server(options.port, options.host)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
