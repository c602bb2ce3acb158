"""Records are found by what people call them, and each object of a store is read once."""

import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import pytest

from orchestrator.records import layout
from orchestrator.records.keys import evaluation_key
from orchestrator.records.repository import Repository
from orchestrator.records.results import load_chains
from orchestrator.records.schema import Scoring
from orchestrator.store.base import NotFound, Store
from orchestrator.store.canonical import canonical_json
from training.config import InputError
from training.data.manifest import Manifest, SplitManifest, StoredFile


class CountingStore:
    """A store that counts how often each object is read."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.reads: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __getattr__(self, name: str):
        return getattr(self.inner, name)

    def read(self, key: str) -> bytes:
        with self._lock:
            self.reads[key] += 1
        return self.inner.read(key)


def test_a_name_stands_for_its_latest_chain(store, publish_chain) -> None:
    publish_chain(store, "demo", created="2026-01-01T00:00:00Z")
    newest = publish_chain(store, "demo", created="2026-01-03T00:00:00Z")
    publish_chain(store, "demo", created="2026-01-02T00:00:00Z")
    assert Repository(store).chain_by_name("demo") == newest


def test_a_chain_is_found_by_the_beginning_of_its_key(store, publish_chain) -> None:
    first, second = (publish_chain(store, name) for name in ("one", "two"))
    assert Repository(store).chain_by_name(second.key[:8]) == second
    assert Repository(store).chain_by_name(first.key) == first


def test_an_unknown_chain_is_answered_with_those_there_are(store, publish_chain) -> None:
    for name in ("WILSON", "MiB"):
        publish_chain(store, name)
    with pytest.raises(InputError, match=r"no chain is named 'WILSN'.*published: MiB, WILSON"):
        Repository(store).chain_by_name("WILSN")


def test_a_step_is_found_by_its_key_the_beginning_of_one_or_its_place_in_a_chain(
    store, publish_chain
) -> None:
    chain = publish_chain(store, "demo")
    repository = Repository(store)
    record = repository.step(chain.steps[1])
    assert repository.step_by_name(record.key) == record
    assert repository.step_by_name(record.key[:6]) == record
    assert repository.step_by_name("demo:1") == record


def test_a_step_that_does_not_exist_is_answered_with_what_was_looked_for(
    store, publish_chain
) -> None:
    publish_chain(store, "demo")
    repository = Repository(store)
    with pytest.raises(InputError, match=r"chain 'demo' has steps 0 to 1, and no step '2'"):
        repository.step_by_name("demo:2")
    with pytest.raises(InputError, match=r"no published step has the key 'abcd'"):
        repository.step_by_name("abcd")


def test_the_beginning_of_several_keys_names_no_step(store, publish_chain) -> None:
    chain = publish_chain(store, "demo")
    record = store.read(layout.step_record(chain.steps[0]))
    twin = f"{chain.steps[0][:6]}0000000000"
    store.write(layout.step_record(twin), record)
    with pytest.raises(InputError, match="give more of it"):
        Repository(store).step_by_name(twin[:6])


@pytest.mark.parametrize("name", ["{} copy", "{} (conflicted copy)", "{}0000"])
def test_a_copy_of_a_steps_folder_makes_no_key_ambiguous(store, publish_chain, name: str) -> None:
    key = publish_chain(store, "demo").steps[0]
    store.write(layout.step_record(name.format(key)), store.read(layout.step_record(key)))
    assert Repository(store).step_by_name(key).key == key
    assert Repository(store).step_by_name(key[:6]).key == key


def test_a_key_that_begins_another_is_that_steps(store, publish_chain) -> None:
    key = publish_chain(store, "demo").steps[0]
    store.write(layout.step_record(key[:8]), store.read(layout.step_record(key)))
    with pytest.raises(InputError, match="give more of it"):
        Repository(store).step_by_name(key[:6])
    assert Repository(store).step_by_name(key[:8]) == Repository(store).step(key[:8])


def test_what_several_chains_share_is_read_once(store, publish_chain) -> None:
    counting = CountingStore(store)
    publish_chain(store, "demo")
    repository = Repository(cast(Store, counting))
    chains = repository.chains()
    load_chains(repository, [*chains, *chains])
    assert set(counting.reads.values()) == {1}


def test_threads_that_ask_for_the_same_record_read_it_once(store, publish_chain) -> None:
    counting = CountingStore(store)
    key = publish_chain(store, "demo").steps[0]
    repository = Repository(cast(Store, counting))
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(repository.step, [key] * 50))
    assert len(set(map(id, found))) == 1
    assert counting.reads[layout.step_record(key)] == 1


def test_what_is_missing_is_looked_for_again(store, publish_chain) -> None:
    key = publish_chain(store, "demo").steps[0]
    record = store.read(layout.step_record(key))
    store.delete(layout.step_record(key))
    repository = Repository(store)
    assert repository.find_step(key) is None
    with pytest.raises(NotFound):
        repository.step(key)
    assert repository.find_steps([key, "0" * 16]) == [None, None]
    store.write(layout.step_record(key), record)
    assert repository.step(key).key == key


def test_a_step_knows_the_evaluation_that_its_chain_asked_for(store, publish_chain) -> None:
    chain = publish_chain(store, "demo")
    repository = Repository(store)
    record = repository.step(chain.steps[0])
    evaluation = repository.evaluation(record.key, chain.evaluations[0])
    assert repository.first_evaluation(record) == evaluation


def test_an_evaluation_of_an_older_version_counts_where_there_is_no_newer(
    store, publish_chain
) -> None:
    chain = publish_chain(store, "demo")
    repository = Repository(store)
    step = repository.step(chain.steps[0])
    made = repository.evaluation(step.key, chain.evaluations[0])
    file = StoredFile(sha256="0" * 64, bytes=1)
    split = SplitManifest(index=file, shards=(), rows=made.images, content=made.content)
    manifest = Manifest(classes=("a",), splits={"val": split})
    scoring = Scoring("digits", manifest, "val", made.config)
    assert repository.find_evaluation(step, scoring) is None
    for counts in (1, 2):
        key = evaluation_key(step.key, step.attempt, made.content, made.config, counts)
        record = made.model_copy(update={"key": key, "counts": counts})
        store.write(layout.evaluation_record(step.key, key), canonical_json(record))
        found = Repository(store).find_evaluation(step, scoring)
        assert found == record


def test_an_evaluation_without_a_version_is_of_the_first(store, publish_chain) -> None:
    chain = publish_chain(store, "demo")
    name = layout.evaluation_record(chain.steps[0], chain.evaluations[0])
    document = json.loads(store.read(name))
    document.pop("counts")
    store.write(name, json.dumps(document).encode())
    assert Repository(store).evaluation(chain.steps[0], chain.evaluations[0]).counts == 1
