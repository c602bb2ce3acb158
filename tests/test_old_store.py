"""Today's code reads, plans and prunes a store of version 0.1.0 as that version did."""

import csv
import json
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from orchestrator.analysis.record import load_analysis, recorded_analyses
from orchestrator.datasets.catalog import resolve
from orchestrator.datasets.image_lists import load_lists
from orchestrator.planning.campaign_record import (
    campaign_tree,
    find_campaign,
    recorded_campaign,
)
from orchestrator.planning.chain import Chain
from orchestrator.planning.planner import Planner
from orchestrator.planning.store_state import look_up_steps
from orchestrator.records import layout
from orchestrator.records.prune import leftovers
from orchestrator.records.repository import Repository
from orchestrator.records.results import ChainResult, load_chains
from orchestrator.records.store_version import open_checked_store, prepare_store
from orchestrator.report.campaign_results import load_campaign_results
from orchestrator.report.campaign_tables import scores_table
from orchestrator.report.render import to_csv
from orchestrator.store.base import Store
from orchestrator.store.lease import read_lease
from tests.support.paths import ROOT
from training.metrics import CONVENTIONS, ConventionName

FIXTURE = ROOT / "tests" / "data" / "store_0_1"
EXPECTED: dict[str, Any] = json.loads((FIXTURE / "expected.json").read_text(encoding="utf-8"))
CAMPAIGN = EXPECTED["campaign"]
# The conventions that there were.
WRITTEN: tuple[ConventionName, ...] = ("wilson", "mib", "plop")


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("STEPCHAIN_CACHE", str(tmp_path / "cache"))
    return open_checked_store(str(FIXTURE / "store"))


@pytest.fixture
def chains(old: Store) -> dict[str, ChainResult]:
    repository = Repository(old)
    found = {}
    for record in repository.chains():
        (found[record.chain["name"]],) = load_chains(repository, [record])
    return found


def test_every_chain_is_read_with_its_scores(chains: dict[str, ChainResult]) -> None:
    assert chains.keys() == EXPECTED["chains"].keys()
    for name, expected in EXPECTED["chains"].items():
        chain = chains[name]
        assert chain.record.key == expected["key"]
        assert list(chain.record.steps) == expected["steps"]
        assert list(chain.record.evaluations) == expected["evaluations"]
        for convention in (CONVENTIONS[name] for name in WRITTEN):
            scores = [each.model_dump(mode="json") for each in chain.scores(convention)]
            assert scores == expected["scores"][convention.name]
            whole = chain.continual(convention).model_dump(mode="json")
            assert whole == expected["continual"][convention.name]


def test_planning_gives_every_step_the_key_it_was_stored_under(old: Store) -> None:
    planner = Planner(old, recorded=True)
    for record in Repository(old).chains():
        planned = planner.plan(Chain.model_validate(record.chain))
        assert tuple(step.key for step in planned.steps) == record.steps


def test_the_campaign_has_the_numbers_and_states_that_it_had(old: Store) -> None:
    record = find_campaign(old, "fixture_campaign")
    assert record is not None
    assert record.key == CAMPAIGN["key"]
    campaign = recorded_campaign(record, old)
    tree = campaign_tree(campaign, old)
    stored = look_up_steps(tree, old, details=True)
    assert {key: str(step.state) for key, step in stored.items()} == CAMPAIGN["status"]
    for convention in (CONVENTIONS[name] for name in WRITTEN):
        result = load_campaign_results(campaign, tree, Repository(old), convention)
        assert rows(to_csv(scores_table(result))) == rows(CAMPAIGN["csv"][convention.name])


def rows(text: str) -> list[list[str]]:
    """Return the fields of a CSV table without the heading, whose words may change."""
    return list(csv.reader(StringIO(text)))[1:]


def test_a_lease_that_holds_progress_is_still_read(old: Store) -> None:
    for step, owner in CAMPAIGN["leases"].items():
        assert b'"progress"' in old.read(layout.step_lease(step))
        lease = read_lease(old, layout.step_lease(step))
        assert lease is not None
        assert lease.owner == owner
        assert not lease.expired


@pytest.mark.parametrize("unfinished", [False, True])
def test_the_same_folders_can_be_pruned(old: Store, unfinished: bool) -> None:
    expected = EXPECTED["leftovers_unfinished" if unfinished else "leftovers"]
    found = leftovers(old, unfinished=unfinished, grace=timedelta(0))
    assert [(each.folder, each.objects, each.bytes) for each in found] == [
        (each["folder"], each["objects"], each["bytes"]) for each in expected
    ]


def test_the_dataset_its_image_lists_and_the_analysis_are_read(old: Store) -> None:
    assert resolve(old, "digits")[0] == EXPECTED["dataset"]
    for name, lists in EXPECTED["selections"].items():
        sha256 = Path(name).stem
        assert layout.image_lists(sha256) == name
        assert [list(ids) for ids in load_lists(old, sha256)] == lists
    analyses = {record.key: record.chain for record in recorded_analyses(Repository(old))}
    assert analyses == {key: each["chain"] for key, each in EXPECTED["analyses"].items()}
    for record in recorded_analyses(Repository(old)):
        assert load_analysis(Repository(old), record).chain.record.key == record.chain


def test_an_old_store_is_written_to_as_before(tmp_path: Path, old: Store) -> None:
    copy = open_checked_store(str(tmp_path / "copy"))
    for name in old.list():
        copy.write(name, old.read(name))
    prepare_store(copy)
    assert set(copy.list()) - set(old.list()) == {layout.STORE_VERSION}
    assert open_checked_store(copy.uri) == copy
