"""Times of steps: their parts add up, what a record does not say is not made up."""

import pytest

from orchestrator.records.repository import Repository
from orchestrator.records.results import load_chains
from orchestrator.records.schema import StepRecord
from orchestrator.report.times import add_times, campaign_times, chain_times, step_times
from orchestrator.store.base import Store

SECONDS = {
    "wait": 1000.0,
    "start": 3.0,
    "fetch": 1.0,
    "train": 80.0,
    "publish": 2.0,
    "evaluate": 13.5,
    "stop": 0.5,
}
PARTS = {"data": 10.0, "checkpoint": 2.0}


@pytest.fixture
def old(store: Store, publish_chain) -> StepRecord:
    """Return the record of step 0 of an older version, which knows training and evaluation."""
    chain = publish_chain(store, "old")
    return Repository(store).step(chain.steps[0])


@pytest.fixture
def record(old: StepRecord) -> StepRecord:
    return old.model_copy(update={"seconds": SECONDS, "train_parts": PARTS})


def cells(record: StepRecord) -> tuple[object, ...]:
    table = campaign_times([record])
    assert table is not None
    (row,) = table.rows
    return row.values


def test_the_parts_of_a_step_are_those_of_its_record(record: StepRecord):
    durations = ("1000.0", "3.0", "80.0", "10.0", "68.0", "2.0", "13.5", "3.5")
    assert cells(record) == (*durations, 0.8, 0.68)


def test_no_second_is_lost_or_counted_twice(record: StepRecord):
    times = step_times(record)
    parts = (times.waiting, times.starting, times.training, times.evaluation, times.other)
    assert sum(part or 0 for part in parts) == sum(SECONDS.values())
    assert sum((times.data or 0, times.compute or 0, times.checkpoint or 0)) == SECONDS["train"]


def test_an_older_record_is_shown_with_what_it_has(old: StepRecord):
    durations = (None, None, "42.0", None, None, None, "3.5", None)
    assert cells(old) == (*durations, 42 / 45.5, None)


def test_a_step_without_a_checkpoint_waited_for_none(record: StepRecord):
    short = record.model_copy(update={"train_parts": {"data": 10.0}})
    assert step_times(short).checkpoint == 0
    assert step_times(short).compute == 70


def test_a_step_that_trained_in_no_time_has_no_share(record: StepRecord):
    assert cells(record.model_copy(update={"seconds": {"wait": 5.0, "train": 0.0}}))[-2:] == (
        None,
        None,
    )


def test_what_is_unknown_of_one_step_is_unknown_of_all(record: StepRecord, old: StepRecord):
    both = add_times([step_times(record), step_times(old)])
    assert both.training == 80 + 42
    assert both.busy == 100 + 45.5
    assert both.data is None
    assert both.waiting is None


def test_a_campaign_adds_up_by_the_number_of_the_step(record: StepRecord):
    later = record.model_copy(update={"index": 1, "seconds": SECONDS | {"train": 180.0}})
    table = campaign_times([later, record, later])
    assert table is not None
    assert [row.name for row in table.rows] == [
        "step 0 (1 trained)",
        "step 1 (2 trained)",
        "all steps",
    ]
    assert [row.values[2] for row in table.rows] == ["80.0", "360.0", "440.0"]
    assert table.rows[-1].values[-2] == 440 / 500
    assert campaign_times([]) is None


def test_long_steps_are_shown_in_hours(record: StepRecord):
    table = campaign_times([record.model_copy(update={"seconds": SECONDS | {"train": 9000.0}})])
    assert table is not None
    assert table.caption.startswith("Hours")
    assert table.rows[0].values[2] == "2.5"


def test_chains_are_sections_and_short_ones_need_no_sum(store: Store, publish_chain):
    records = [publish_chain(store, "two"), publish_chain(store, "one", groups=((1, 2),))]
    table = chain_times(load_chains(Repository(store), records))
    assert [(row.section, row.name) for row in table.rows] == [
        ("two", "step 0"),
        ("two", "step 1"),
        ("two", "all steps"),
        ("one", "step 0"),
    ]
    assert table.rows[2].values[2] == "84.0"
