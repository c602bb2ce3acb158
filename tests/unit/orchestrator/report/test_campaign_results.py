"""Test what reading a campaign asks of the store, and the numbers of its variants."""

from typing import cast

import pytest

from orchestrator.planning.campaign import Campaign, sweep
from orchestrator.planning.campaign_record import campaign_record, campaign_tree
from orchestrator.planning.step_tree import build_tree
from orchestrator.records import layout
from orchestrator.records.repository import Repository
from orchestrator.report.campaign_page import build_campaign_report, write_campaign_report
from orchestrator.report.campaign_results import load_campaign_results, recorded_results
from orchestrator.report.campaign_tables import scores_table
from orchestrator.report.statistics import summarize
from orchestrator.store.base import Store
from stepchain import digits_wilson
from tests.support.counting_store import CountingStore
from training.metrics import wilson

READ = ("steps/", "evaluations/")


@pytest.fixture
def counting(finished_campaign, monkeypatch, tmp_path) -> CountingStore:
    """Return the store of a finished campaign, counted, with an empty cache."""
    monkeypatch.setenv("STEPCHAIN_CACHE", str(tmp_path / "cache"))
    return CountingStore(finished_campaign[1])


def test_a_table_reads_each_object_at_most_once(finished_campaign, counting) -> None:
    campaign, store = finished_campaign
    tree = campaign_tree(campaign, cast(Store, counting))
    result = load_campaign_results(campaign, tree, Repository(cast(Store, counting)), wilson())
    scores_table(result)
    assert max(counting.requests.values()) == 1
    # Every step has a record, the record of an evaluation and its counts. Curves are not read.
    asked = [key for key in counting.requests if key.startswith(READ)]
    assert len(asked) == 3 * len(tree.nodes)
    assert counting.requests.total() <= len(list(store.list()))


def test_a_report_reads_each_object_at_most_once(finished_campaign, counting, tmp_path) -> None:
    campaign, store = finished_campaign
    repository = Repository(cast(Store, counting))
    result = recorded_results(campaign_record(campaign), repository, wilson())
    write_campaign_report(build_campaign_report(result), tmp_path)
    assert max(counting.requests.values()) == 1
    assert counting.requests.total() <= len(list(store.list()))


def test_children_of_unpublished_steps_are_not_asked_for(store, planned) -> None:
    chains = sweep(digits_wilson(), {"method.alpha": (0, 0.5), "seed": (1, 2)})
    tree = build_tree([planned(chain) for chain in chains])
    counting = CountingStore(store)
    campaign = Campaign("alpha", "Which alpha?", chains)
    load_campaign_results(campaign, tree, Repository(cast(Store, counting)), wilson())
    roots = [layout.step_record(key) for key, node in tree.nodes.items() if node.parent is None]
    assert counting.requests == dict.fromkeys(roots, 1)


def test_numbers_of_a_variant_are_typed(finished_campaign) -> None:
    campaign, store = finished_campaign
    tree = campaign_tree(campaign, store)
    result = load_campaign_results(campaign, tree, Repository(store), wilson())
    variant = result.variants[0]
    assert result.axes == {"method.alpha": [0, 0.5, 1], "method.prior": ["bce", "fixed"]}
    assert variant.axes == {"method.alpha": 0, "method.prior": "bce"}
    last = [seed.scores[-1] for seed in variant.seeds]
    assert variant.means.old == summarize(scores.miou_old for scores in last)
    assert variant.means.new == summarize(scores.miou_new for scores in last)
    assert variant.means.all == summarize(scores.miou_all for scores in last)
    assert variant.breakdown is not None
    assert sum(variant.breakdown.model_dump().values()) == pytest.approx(1)
    assert (variant.paper, variant.comparable, variant.difference("all")) == (None, False, None)
