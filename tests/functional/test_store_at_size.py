"""Commands that read a large store ask for each object once, and list instead of asking for each.

Requests are exact numbers, so a command that begins to ask for more fails here.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.counted_requests import counted
from benchmarks.made_up_campaign import SEEDS
from benchmarks.made_up_store import fill
from jobs.campaign.cli import main as campaign
from jobs.ingest import main as ingest
from jobs.report import main as report
from orchestrator.records import layout, listing
from orchestrator.records.keys import shares
from orchestrator.store.base import Store
from orchestrator.store.open import open_store
from orchestrator.tracking import rebuild
from orchestrator.tracking.runs import Run

CHAINS = 10
FAILED = SEEDS  # steps of five more chains, whose fourth increment failed
# All chains of a seed share step 0.
STEPS = SEEDS + 5 * CHAINS + 3 * FAILED
# The store's version, the dataset's name and its manifest. Indexes are in the cache by then.
OPENING = 3
FILE = '''"""How many requests?"""

from benchmarks.made_up_campaign import made_up_campaign


def chains():
    return made_up_campaign(10).chains
'''
Main = Callable[[list[str]], None]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = open_store(str(tmp_path_factory.mktemp("size") / "store"))
    fill(store, CHAINS)
    return store


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "size.py").write_text(FILE)
    return str(tmp_path / "size.py")


def requests(main: Main, *arguments: str, store: Store, far: bool = True) -> Counter[str]:
    """Run a command and return how many requests of each kind it sent."""
    with counted(far=far) as found:
        main([*arguments, "--store", store.uri])
    return found


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> int:
    """Let lists be taken of this small store as of a large one, and return how many."""
    monkeypatch.setattr(listing, "LEAST", STEPS)
    return len(shares(layout.STEPS)) + len(shares(layout.EVALUATIONS))


def test_a_plan_reads_the_records_and_lists_the_rest(store: Store, file: str, listed: int) -> None:
    found = requests(campaign, "plan", file, store=store)
    # Of a step that is not published, the record and the lease are looked for.
    assert found["read"] == OPENING + STEPS + 2 * FAILED
    assert found["entries"] == listed
    assert found["list"] == len(shares(layout.EVALUATIONS))  # whose speeds may tell the cost
    assert found["exists"] == 1  # of the store


def test_a_plan_in_a_folder_asks_for_each_file(store: Store, file: str) -> None:
    found = requests(campaign, "plan", file, store=store, far=False)
    assert found["read"] == OPENING + 2 * STEPS + 2 * FAILED
    assert found["entries"] == STEPS
    assert found["exists"] == 1 + STEPS


def test_a_status_also_reads_what_failed_attempts_left(
    store: Store, file: str, listed: int
) -> None:
    found = requests(campaign, "status", file, store=store)
    # Progress and error of the attempt.
    assert found["read"] == OPENING + STEPS + 4 * FAILED
    assert found["entries"] == listed
    assert found["list"] == FAILED


def test_what_shows_scores_reads_three_objects_of_a_step(
    store: Store, file: str, tmp_path: Path
) -> None:
    table = requests(campaign, "table", file, store=store)
    page = requests(report, "--campaign", "size", "--out", str(tmp_path), store=store)
    # Record, evaluation and counts; chains are not finished, so verdicts are looked for.
    assert table == {"read": OPENING + 3 * STEPS + FAILED, "exists": 1, "list": 1}
    assert page == {"read": table["read"] + 1, "exists": 1, "list": 2}  # and the campaign's record


def test_pruning_lists_all_steps_and_reads_their_records(store: Store) -> None:
    found = requests(campaign, "prune", "--grace-hours", "0", store=store)
    assert found["read"] == 2 + STEPS  # the store's version, and the dataset's manifest
    # Besides the steps: files of datasets and temporary files; names of datasets, and attempts that
    # failed, for the checkpoint that the next one goes on from.
    assert found["entries"] == len(shares(layout.STEPS)) + 2
    assert found["list"] == 1 + FAILED


class Puts:
    """Takes runs as MLflow does, and keeps their keys."""

    def __init__(self, uri: str) -> None:
        self.keys: list[str] = []

    def look_up(self) -> None:
        """Look up nothing: this MLflow is empty."""

    def put_whole(self, run: Run) -> None:
        self.keys.append(run.key)

    put = put_whole

    def running_runs(self) -> list[Run]:
        return []


def test_mlflow_is_brought_into_line_with_one_read_of_each_object(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Puts("")
    monkeypatch.setattr(rebuild, "RunClient", lambda uri: client)
    found = requests(report, "--sync-mlflow", store=store)
    steps = SEEDS + 5 * CHAINS  # of the chains that have a record
    # Each chain is reported, and then named as one of the campaign's.
    assert len(client.keys) == steps + 2 * CHAINS + 1
    assert len(set(client.keys)) == steps + CHAINS + 1
    # The campaign's steps are planned again. Curves are read for the runs of steps alone.
    campaign_record = 1
    assert found["read"] == OPENING + 3 * STEPS + FAILED + steps + CHAINS + campaign_record


def test_datasets_are_listed_whatever_else_there_is(store: Store) -> None:
    assert requests(ingest, "ls", store=store) == {"read": OPENING, "exists": 1, "list": 1}
