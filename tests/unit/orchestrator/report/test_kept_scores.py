"""Test that kept scores give the numbers of the records, and survive writing and reading."""

import pytest

from orchestrator.planning.campaign import Campaign, sweep
from orchestrator.planning.step_tree import build_tree
from orchestrator.records.repository import Repository
from orchestrator.report.campaign_results import CampaignResult, load_campaign_results
from orchestrator.report.kept_scores import keep, kept_path, read_kept, write_kept
from stepchain.presets import digits_wilson
from training.config import InputError
from training.metrics import wilson


@pytest.fixture
def result(store, planned, publish_step) -> CampaignResult:
    """Return the numbers of two variants with two seeds each. One of the four is not published."""
    chains = sweep(digits_wilson(), {"method.alpha": (0, 0.5), "seed": (1, 2)})
    tree = build_tree([planned(chain) for chain in chains])
    for plan, kept in zip(tree.chains[:3], (0.6, 0.7, 0.8), strict=True):
        publish_step(store, plan, plan.steps[0], dict.fromkeys(range(1, 7), 0.9))
        publish_step(store, plan, plan.steps[1], dict.fromkeys(range(1, 11), kept))
    campaign = Campaign("hardness", "How hard?", chains)
    return load_campaign_results(campaign, tree, Repository(store), wilson())


def test_kept_scores_are_those_of_the_records(result, tmp_path) -> None:
    write_kept(keep(result), tmp_path)
    kept = read_kept("hardness", tmp_path)
    assert kept == keep(result)
    assert kept.published == 3
    assert [(each.name, each.asked, tuple(each.chains)) for each in kept.variants] == [
        ("alpha=0", (1, 2), (1, 2)),
        ("alpha=0.5", (1, 2), (1,)),
    ]
    for variant, recorded in zip(kept.variants, result.variants, strict=True):
        scores = tuple(kept.seeds(variant).values())
        assert [each.means for each in scores] == [seed.means for seed in recorded.seeds]
        assert [each.breakdown for each in scores] == [seed.breakdown for seed in recorded.seeds]
        assert [each.base for each in scores] == [
            seed.scores[0].miou_new for seed in recorded.seeds
        ]
    assert kept.seeds(kept.variants[1])[1].means.old == pytest.approx(0.8)


def test_a_shared_step_is_kept_once_and_says_where_it_came_from(result) -> None:
    kept = keep(result)
    assert [step.index for step in kept.steps] == [0, 1, 0, 1, 1]
    keys = {record.key: record for record in result.records}
    step = kept.steps[1]
    assert (step.commit, step.train_seconds) == ("0123456789abcdef", 42.0)
    assert step.iterations == keys[step.key].iterations
    # Background, and 1,000 pixels of each digit, whether the step knows it or not.
    assert sum(map(sum, step.pixels.values())) == 1000 + 10 * 1000


def test_a_file_has_a_line_for_each_variant_and_step(result, tmp_path) -> None:
    """So that a difference between two versions names what changed."""
    kept = keep(result)
    lines = write_kept(kept, tmp_path).read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f' {{"key": "{kept.steps[0].key}"'))
    assert line.endswith("},")
    assert sum(line.startswith(' {"name": "alpha=') for line in lines) == 2


def test_a_file_that_is_absent_or_spoilt_is_named(tmp_path) -> None:
    with pytest.raises(InputError, match=r"no scores of 'alpha' at .*--store"):
        read_kept("alpha", tmp_path)
    kept_path("alpha", tmp_path).write_text('{"format": 1}')
    with pytest.raises(InputError, match="is no file of kept scores"):
        read_kept("alpha", tmp_path)
