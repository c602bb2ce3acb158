"""What a store holds that we did not put there is passed over or named, and the rest goes on."""

from datetime import timedelta
from pathlib import Path

import pytest

from jobs.campaign.cli import main as campaign
from jobs.datasets import ls
from jobs.options import StoreOptions
from orchestrator.analysis.record import recorded_analyses
from orchestrator.datasets.catalog import resolve
from orchestrator.planning.campaign_record import recorded_campaigns
from orchestrator.records import layout
from orchestrator.records.damage import DamagedRecord
from orchestrator.records.prune import leftovers
from orchestrator.records.repository import Repository
from orchestrator.records.store_version import check_there
from orchestrator.store.base import Store, StoreError, is_litter
from orchestrator.store.cache import CorruptedObject
from orchestrator.store.open import open_store
from tests.support.datasets import publish_digits
from tests.support.records import publish_chain

LITTER = (".DS_Store", "._a.json", "Thumbs.db", "desktop.ini", ".nfs0001")
FOLDERS = (
    layout.CHAINS,
    layout.CAMPAIGNS,
    layout.ANALYSES,
    layout.DATASET_NAMES,
    layout.STEPS,
    layout.EVALUATIONS,
    layout.SHARDS,
    layout.SHARD_NOTES,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def put(store: Store, key: str, data: bytes = b"") -> None:
    """Write a file into the store's folder, as a file manager would."""
    path = Path(store.uri) / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_what_systems_leave_in_folders_is_passed_over_everywhere(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture
):
    publish_digits(store, tmp_path, seed=1, train=4, val=2)
    chain = publish_chain(store, "digits_wilson")
    for folder in (*FOLDERS, f"{layout.STEPS}{chain.steps[0]}/"):
        for name in LITTER:
            put(store, f"{folder}{name}", b"\0\5\26\7")
    repository = Repository(store)
    assert [each.key for each in repository.chains()] == [chain.key]
    assert repository.first_evaluation(repository.step(chain.steps[0])) is not None
    assert recorded_campaigns(store) == []
    assert recorded_analyses(repository) == []
    assert not any(is_litter(key) for key in store.list())
    leftovers(store, grace=timedelta(0))
    ls(StoreOptions(store.uri))
    assert "digits" in capsys.readouterr().out


@pytest.mark.parametrize("data", [b"", b"{", b'{"key": 3}'])
def test_a_record_that_is_none_is_named_and_the_others_are_shown(
    data: bytes, store: Store, caplog: pytest.LogCaptureFixture
):
    chain = publish_chain(store, "digits_wilson")
    foreign = layout.chain_record("f" * 16)
    put(store, foreign, data)
    repository = Repository(store)
    assert [each.key for each in repository.chains()] == [chain.key]
    assert [each.key for each in repository.chains()] == [chain.key]
    (said,) = [each.getMessage() for each in caplog.records]
    assert foreign in said
    assert "restore it from a copy, or delete it" in said
    state = "damaged" if data else "empty"
    with pytest.raises(DamagedRecord, match=f"'{foreign}' in the store .* is {state}"):
        repository.chain("f" * 16)


def test_nothing_of_a_step_is_deleted_whose_record_cannot_be_read(store: Store):
    chain = publish_chain(store, "digits_wilson")
    put(store, layout.step_record(chain.steps[0]), b"")
    put(store, f"{layout.attempts_folder(chain.steps[0])}a2/progress.json", b"{}")
    put(store, f"{layout.attempts_folder(chain.steps[1])}a2/progress.json", b"{}")
    found = leftovers(store, grace=timedelta(0))
    assert {each.step for each in found} == {chain.steps[1]}


@pytest.mark.parametrize(("data", "state"), [(b"", "empty"), (b"12ab", "damaged")])
def test_a_dataset_whose_name_stands_for_nothing_is_named(
    data: bytes, state: str, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture
):
    publish_digits(store, tmp_path, seed=1, train=4, val=2)
    put(store, layout.dataset_name("mine"), data)
    with pytest.raises(CorruptedObject, match=f"'datasets/refs/mine' .* is {state}: ingest 'mine'"):
        resolve(store, "mine")
    ls(StoreOptions(store.uri))
    out = capsys.readouterr().out
    assert "digits" in out
    assert "passed over: the object 'datasets/refs/mine'" in out


@pytest.mark.parametrize(
    "arguments",
    [["table", "digits_seeds"], ["status", "digits_seeds"], ["prune"], ["plan", "digits_seeds"]],
)
def test_a_store_that_does_not_exist_is_one_sentence(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
):
    with pytest.raises(SystemExit) as caught:
        campaign([*arguments, "--store", str(tmp_path / "no" / "such")])
    assert caught.value.code == 2
    assert "there is no store at" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_a_folder_of_something_else_is_no_store(store: Store):
    put(store, "notes.txt")
    with pytest.raises(StoreError, match="there is no store at"):
        check_there(store)
    publish_chain(store, "digits_wilson")
    check_there(store)
