"""Chains are read back whole or not at all."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from orchestrator.records.repository import Repository
from orchestrator.records.results import counting_words, load_chains, start_words
from orchestrator.store.cache import CorruptedObject
from training.config import EvaluationConfig
from training.metrics import Scores, mib, wilson


def mean_iou(scores: Scores, classes: Iterable[int]) -> float:
    """Return the mean IoU of these classes, which must all have one."""
    values = [scores.iou[class_id] for class_id in classes]
    known = [value for value in values if value is not None]
    assert len(known) == len(values)
    return float(np.mean(known))


def test_a_chain_is_read_back_as_published(store, publish_chain) -> None:
    record = publish_chain(store, "demo")
    (chain,) = load_chains(Repository(store), [record])
    assert [step.record.key for step in chain.steps] == list(record.steps)
    assert chain.groups == ((1, 2, 3, 4, 5, 6), (7, 8, 9, 10))
    assert [chain.class_name(class_id) for class_id in (0, 1, 10)] == ["background", "0", "9"]
    assert chain.steps[1].curves[0]["iteration"] == 10
    before, after = chain.scores(wilson())
    assert set(after.iou) - set(before.iou) == {7, 8, 9, 10}
    assert chain.steps[1].matrix(wilson()).sum() == sum(
        np.delete(chain.steps[1].confusion.pixels, chain.steps[1].confusion.truth == 255)
    )
    forgotten = mean_iou(before, range(1, 7)) - mean_iou(after, range(1, 7))
    assert chain.continual(wilson()).forgetting_first_minus_last == pytest.approx(forgotten)


def test_joint_training_is_scored_by_the_groups_of_its_scenario(store, publish_chain) -> None:
    """Its only step learned all classes at once. Old and new are those of the scenario."""
    record = publish_chain(store, "joint", groups=((1, 2, 3, 4, 5, 6, 7, 8, 9, 10),))
    groups = [list("012345"), list("6789")]
    named = record.model_copy(
        update={"chain": record.chain | {"scenario": record.chain["scenario"] | {"groups": groups}}}
    )
    (chain,) = load_chains(Repository(store), [named])
    assert chain.groups == ((1, 2, 3, 4, 5, 6), (7, 8, 9, 10))
    (scores,) = chain.scores(wilson())
    old = pytest.approx(mean_iou(scores, range(1, 7)))
    new = pytest.approx(mean_iou(scores, range(7, 11)))
    assert scores.miou_old == scores.miou_base == old
    assert scores.miou_new == scores.miou_added == new
    assert scores.miou_all == pytest.approx(mean_iou(scores, scores.iou))
    # One step forgets nothing.
    assert chain.continual(wilson()).forgetting_first_minus_last is None


def test_chains_of_one_name_stay_apart(store, publish_chain) -> None:
    records = [publish_chain(store, "demo", seed=seed) for seed in (0, 1)]
    names = [chain.name for chain in load_chains(Repository(store), records)]
    assert names == [f"demo ({record.key[:6]})" for record in records]


def test_chains_scored_on_other_images_are_not_compared(store, publish_chain) -> None:
    records = [publish_chain(store, "one"), publish_chain(store, "two", content="e" * 64)]
    with pytest.raises(
        ValueError, match=r"step 0 of 'two' was scored on .* such numbers do not compare"
    ):
        load_chains(Repository(store), records)


@pytest.mark.parametrize("damaged", ["curves.json", ".parquet"])
def test_a_damaged_file_is_noticed(store, publish_chain, damaged) -> None:
    record = publish_chain(store, "demo")
    key = next(key for key in store.list() if key.endswith(damaged))
    store.write(key, b"something else")
    with pytest.raises(CorruptedObject, match="is not the file its record names"):
        load_chains(Repository(store), [record])


def test_what_older_counts_cannot_give_is_said(store, publish_chain) -> None:
    """Only where images are cropped, and only under conventions that drop images."""
    (chain,) = load_chains(Repository(store), [publish_chain(store, "demo")])
    whole = chain.steps[0]
    assert counting_words(mib(), [whole]) == mib().words
    cropped = whole.evaluation.model_copy(update={"config": EvaluationConfig(crop=64)})
    older = replace(whole, evaluation=cropped)
    assert "there an image counts by its crop alone" in counting_words(mib(), [whole, older])
    assert counting_words(wilson(), [older]) == wilson().words
    newer = replace(whole, evaluation=cropped.model_copy(update={"counts": 2}))
    assert counting_words(mib(), [newer]) == mib().words


def test_tables_say_that_step_0_had_no_masks(store, publish_chain) -> None:
    (chain,) = load_chains(Repository(store), [publish_chain(store, "demo")])
    records = [step.record for step in chain.steps]
    assert start_words(records) == ""
    task = records[0].step.task.model_copy(update={"supervision": "image"})
    step = records[0].step.model_copy(update={"task": task})
    weak = records[0].model_copy(update={"step": step})
    others = [weak.model_copy(update={"key": f"k{number}"}) for number in range(4)]
    assert start_words([weak, *records[1:]]) == (
        f"Step 0 learned from image labels, not from masks: {weak.key}."
    )
    assert start_words(others).endswith("not from masks: k0, k1, k2 and 1 more.")
